from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from edgemask_convert.training.history import History, read_log


def events(folder: Path) -> list[tuple[int, str, float]]:
    """Return step, tag and value of everything in the one event file of a folder."""
    (path,) = (folder / "tensorboard").iterdir()
    found = []
    for record in tf.data.TFRecordDataset(str(path)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        found += [(event.step, v.tag, round(v.simple_value, 4)) for v in event.summary.value]
    return found


def steps(history: History) -> list[int]:
    return [json.loads(line)["step"] for line in history.path.read_text().splitlines()]


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a run that reported up to step 150."""
    history = History(tmp_path / "run", 0)
    for step in (50, 100, 150):
        history.append(step, total=step / 100)
    history.append(150, dev_mask_AP=0.25)
    return history.folder


def test_rows(stopped: Path) -> None:
    rows = read_log(stopped / "log.jsonl")
    assert [(row["step"], row.get("total")) for row in rows] == [
        (50, 0.5), (100, 1.0), (150, 1.5), (150, None),
    ]  # fmt: skip
    assert rows[0]["time"] > 1.6e9
    assert events(stopped)[-2:] == [(150, "train/total", 1.5), (150, "dev/mask_AP", 0.25)]


def test_no_row_twice_after_a_resume(stopped: Path) -> None:
    """The last checkpoint was at step 120, so 150 comes again."""
    history = History(stopped, 120)
    assert steps(history) == [50, 100]
    history.append(150, total=1.75)
    assert steps(history) == [50, 100, 150]
    assert events(stopped) == [
        (50, "train/total", 0.5), (100, "train/total", 1.0), (150, "train/total", 1.75),
    ]  # fmt: skip
    times = [row["time"] for row in read_log(stopped / "log.jsonl")]
    assert times == sorted(times)


def test_a_line_that_a_kill_cut_off(stopped: Path) -> None:
    log = stopped / "log.jsonl"
    log.write_text(log.read_text()[:-9])
    assert steps(History(stopped, 150)) == [50, 100, 150]


def test_curves_are_drawn(stopped: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install matplotlib")
    History(stopped, 150).close()
    assert (stopped / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_matplotlib_does_not_end_the_run(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "edgemask_convert.training.curves", raising=False)
    with pytest.warns(UserWarning, match=r"no curves\.png.*pip install matplotlib"):
        History(stopped, 150).close()
    assert not (stopped / "curves.png").exists()


def test_tensorboard_reads_the_events(stopped: Path) -> None:
    accumulator: Any = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install tensorboard"
    )
    loaded = accumulator.EventAccumulator(str(stopped / "tensorboard")).Reload()
    tags = loaded.Tags()
    scalars = [*tags["scalars"], *tags["tensors"]]
    assert sorted(scalars) == ["dev/mask_AP", "train/total"]
