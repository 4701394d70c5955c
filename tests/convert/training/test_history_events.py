"""What TensorBoard and the curves get of a run that was stopped and went on."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from edgemask_convert.training import history
from edgemask_convert.training.history import History, read_log


def events(folder: Path) -> list[Any]:
    (path,) = (folder / "tensorboard").iterdir()
    records = tf.data.TFRecordDataset(str(path))
    return [tf.compat.v1.Event.FromString(record.numpy()) for record in records]


@pytest.fixture
def yesterday(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that stopped a day ago."""
    start = time.time() - 86400
    with monkeypatch.context() as patch:
        patch.setattr(history.time, "time", lambda: start)
        run = History(tmp_path, 0)
        run.append(10, total=2.0)
        run.append(20, total=1.0)
    return tmp_path


def test_one_file_of_events_however_often_a_run_starts(yesterday: Path) -> None:
    run = History(yesterday, 20)
    run.append(30, total=0.5)
    found = events(yesterday)
    assert [event.step for event in found] == [0, 10, 20, 30]
    assert found[0].file_version == "brain.Event:2"  # without it TensorBoard reads no file
    assert not found[0].summary.value


def test_rows_keep_the_time_at_which_they_were_computed(yesterday: Path) -> None:
    run = History(yesterday, 20)
    run.append(30, total=0.5)
    for times in (
        [event.wall_time for event in events(yesterday)[1:]],
        [row["time"] for row in read_log(run.path)],
    ):
        ages = [time.time() - value for value in times]
        assert ages == pytest.approx([86400, 86400, 0], abs=60)


def test_what_was_reported_is_on_the_disk_at_once(yesterday: Path) -> None:
    """A run that is killed closes nothing."""
    run = History(yesterday, 20)
    run.append(30, total=0.5)
    assert events(yesterday)[-1].step == 30
    assert json.loads(run.path.read_text().splitlines()[-1])["step"] == 30


def test_curves_show_old_and_new_rows(yesterday: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = pytest.importorskip(
        "edgemask_convert.training.curves",
        reason="pip install matplotlib",
        exc_type=ImportError,
    )
    drawn: list[list[int]] = []
    monkeypatch.setattr(
        curves,
        "draw_curves",
        lambda rows, path: drawn.append([row["step"] for row in rows]),
    )
    run = History(yesterday, 10)
    run.append(20, total=0.9)
    run.draw()
    run.append(30, total=0.5)
    run.close()
    assert drawn == [[10, 20], [10, 20, 30]]


def test_a_start_that_fails_keeps_the_log(yesterday: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (yesterday / "log.jsonl").read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        History(yesterday, 10)
    assert (yesterday / "log.jsonl").read_bytes() == before
