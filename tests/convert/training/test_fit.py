"""The loop around a trainer; the trainer's own work is in test_trainer.py."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf
from edgemask_convert.config import from_dict
from edgemask_convert.data.dataset import DatasetError
from edgemask_convert.training.fit import REPORT_STEPS, StopRequest, fit
from edgemask_convert.training.trainer import TrainingError


class FakeTrainer:
    """Counts steps; its loss is the number of the step."""

    replicas = 1

    def __init__(self, total_steps: int, step: int = 0, **train: Any) -> None:
        self.config = from_dict({"train": {"save_minutes": 60.0, **train}})
        self.total_steps, self.step = total_steps, step
        self.stopping = False
        self.saved: list[int] = []

    def train_batch(self, batch: Any, stop: bool = False) -> dict[str, float]:
        self.step += 1
        self.stopping = stop
        return {"total": float(self.step)}

    def save(self, path: Path, header: Any) -> None:
        self.saved.append(self.step)


class FakeDev:
    """Is due every 60 steps."""

    def __init__(self, trainer: FakeTrainer) -> None:
        self.trainer = trainer

    def due(self) -> bool:
        return self.trainer.step % 60 == 0

    def __call__(self) -> dict[str, float]:
        return {"dev_mask_AP": self.trainer.step / 1000}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def run(trainer: Any, folder: Path, batches: Any, **options: Any) -> int | None:
    return fit(trainer, batches, {}, folder / "checkpoint.npz", **options)


def test_reports_measures_and_saves(tmp_path: Path) -> None:
    trainer = FakeTrainer(130)
    assert run(trainer, tmp_path, [{}] * 130, dev=FakeDev(trainer)) is None
    found = [(r["step"], r.get("total"), r.get("dev_mask_AP")) for r in rows(tmp_path)]
    assert found == [
        (50, 25.5, None),  # the mean of 1 to 50
        (60, None, 0.06),
        (100, 75.5, None),
        (120, None, 0.12),
        (130, 115.5, None),  # the rest
    ]
    assert REPORT_STEPS == 50
    assert trainer.saved == [60, 120, 130]  # before each measurement, and at the end


def test_what_goes_wrong_in_measuring_costs_no_step(tmp_path: Path) -> None:
    trainer = FakeTrainer(130)

    class Broken(FakeDev):
        def __call__(self) -> dict[str, float]:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run(trainer, tmp_path, [{}] * 130, dev=Broken(trainer))
    assert trainer.saved == [60]


def test_a_measurement_that_a_kill_cut_short_is_made_up_for(tmp_path: Path) -> None:
    """The checkpoint of step 60 was saved before it; that of the last step may be the only one."""
    trainer = FakeTrainer(120)

    class Killed(FakeDev):
        def __call__(self) -> dict[str, float]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(trainer, tmp_path, [{}] * 60, dev=Killed(trainer))
    for start in (60, 120, 120):
        trainer = FakeTrainer(120, step=start)
        run(trainer, tmp_path, [{}] * (120 - start), dev=FakeDev(trainer))
    measured = [(r["step"], r["dev_mask_AP"]) for r in rows(tmp_path) if "dev_mask_AP" in r]
    assert measured == [(60, 0.06), (120, 0.12)]
    fresh = FakeTrainer(1)
    run(fresh, tmp_path / "fresh", [], dev=FakeDev(fresh))
    assert rows(tmp_path / "fresh") == []


@pytest.mark.parametrize("chief", [True, False])
def test_a_damaged_photograph_costs_no_step(tmp_path: Path, chief: bool) -> None:
    def batches() -> Iterator[dict[str, Any]]:
        yield from [{}] * 3
        raise DatasetError("image 7: cannot decode 7.jpg")

    trainer = FakeTrainer(9)
    with pytest.raises(DatasetError, match="image 7"):
        run(trainer, tmp_path, batches(), chief=chief)
    assert trainer.saved == ([3] if chief else [])


def test_weights_that_are_not_sound_are_not_saved(tmp_path: Path) -> None:
    def fails(batch: Any, stop: bool) -> dict[str, float]:
        raise TrainingError("the loss is not finite")

    trainer = FakeTrainer(9)
    trainer.train_batch = fails  # type: ignore
    with pytest.raises(TrainingError):
        run(trainer, tmp_path, [{}] * 9)
    assert trainer.saved == []


def test_another_worker_writes_nothing(tmp_path: Path) -> None:
    trainer = FakeTrainer(60, save_minutes=0.0)
    assert run(trainer, tmp_path, [{}] * 60, chief=False) is None
    assert trainer.saved == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_a_step_and_saves(
    tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = FakeTrainer(9)

    def batches() -> Iterator[dict[str, Any]]:
        for step in range(9):
            if step == 3:
                os.kill(os.getpid(), number)
            yield {}

    before = signal.getsignal(number)
    assert run(trainer, tmp_path, batches()) == number
    assert trainer.saved == [4]
    assert "stopping after this step" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_a_wish_of_another_worker_ends_the_run(tmp_path: Path) -> None:
    trainer = FakeTrainer(9)
    step = trainer.train_batch
    trainer.train_batch = lambda batch, stop: step(batch, trainer.step == 4)  # type: ignore
    assert run(trainer, tmp_path, [{}] * 9) == signal.SIGTERM
    assert trainer.saved == [5]


def test_a_second_interrupt_does_not_wait() -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        RuntimeError("reentrant call inside <_io.BufferedWriter>"),
        ValueError("I/O operation on closed file."),
    ],
    ids=["gone", "in the middle of a line", "closed"],
)
def test_a_signal_that_cannot_be_answered_is_heard(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it raised in the handler, it would end the run, and nothing would be saved."""

    def write(text: str) -> None:
        raise error

    trainer = FakeTrainer(9)

    def batches() -> Iterator[dict[str, Any]]:
        yield {}
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", SimpleNamespace(write=write, flush=lambda: None))
            os.kill(os.getpid(), signal.SIGTERM)
        yield from [{}] * 8

    assert run(trainer, tmp_path, batches()) == signal.SIGTERM
    assert trainer.saved == [2]


def test_no_signals_in_another_thread() -> None:
    def enter() -> None:
        with StopRequest() as stop:
            seen.append(stop.signal)

    seen: list[int | None] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [None]


def test_a_worker_that_went_away_is_one_line(tmp_path: Path) -> None:
    trainer = FakeTrainer(3)
    trainer.replicas = 2

    def fails(batch: Any, stop: bool) -> dict[str, float]:
        raise tf.errors.UnavailableError(None, None, "Connection reset by peer\nmore")

    trainer.train_batch = fails  # type: ignore
    with pytest.raises(TrainingError, match=r"step 0 .*\(Connection reset by peer\).* start all"):
        run(trainer, tmp_path, [{}] * 3)
    trainer.replicas = 1
    with pytest.raises(tf.errors.UnavailableError):
        run(trainer, tmp_path, [{}] * 3)


def test_saves_every_so_many_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = FakeTrainer(10, save_minutes=1.0)
    clock = SimpleNamespace(monotonic=lambda: 30.0 * trainer.step)  # a step takes half a minute
    monkeypatch.setattr("edgemask_convert.training.fit.time", clock)
    assert run(trainer, tmp_path, [{}] * 10) is None
    assert trainer.saved == [3, 6, 9, 10]
