"""The training loop around :class:`.trainer.Trainer`: reports, measurements, saving, stopping."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from edgemask.terminal import bar_options

from ..data.dataset import DatasetError
from ..evaluation.measure import DevMeasurement
from .history import History
from .trainer import Trainer, TrainingError

REPORT_STEPS = 50


class StopRequest:
    """Turns the first SIGINT or SIGTERM into a wish, so that a step ends and is saved.

    A second SIGINT interrupts at once. Outside the main thread, where Python takes no signals,
    nothing is caught.

    Attributes
    ----------
    signal : int or None
        The signal that came.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._caught)
        return self

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        # A terminal that has gone, or is in the middle of a line, must not end the run unsaved.
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            print("stopping after this step; interrupt again to stop at once", file=sys.stderr)

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def fit(
    trainer: Trainer,
    batches: Iterable[dict[str, np.ndarray]],
    header: dict[str, Any],
    checkpoint: Path,
    chief: bool = True,
    dev: DevMeasurement | None = None,
) -> int | None:
    """Train until the batches end or a signal asks to stop.

    Parameters
    ----------
    trainer : Trainer
        At the step that the first batch belongs to.
    batches : iterable of dict
    header : dict
        Goes into the checkpoint.
    checkpoint : path
        Saved every ``train.save_minutes``, before measuring, at the end, before stopping, and if
        a photograph cannot be read.
    chief : bool
        Whether this process is the one that reports, measures and writes files.
    dev : DevMeasurement, optional

    Returns
    -------
    int or None
        The signal that ended the run before its end.

    Raises
    ------
    TrainingError
        A loss is not finite, or another worker has gone.
    DatasetError
        A photograph cannot be read.
    """
    size = trainer.config.train.batch_size
    history = History(checkpoint.parent, trainer.step) if chief else None
    bar = tqdm(
        total=trainer.total_steps * size, initial=trainer.step * size, desc="train", unit="img",
        unit_scale=True, **(bar_options(sys.stderr) if chief else {"disable": True}),
    )  # fmt: skip
    shown: dict[str, str] = {}
    recent: list[dict[str, float]] = []
    saved = time.monotonic()

    def save() -> None:
        nonlocal saved
        if chief:
            trainer.save(checkpoint, header)
            saved = time.monotonic()

    def measure(history: History, dev: DevMeasurement) -> None:
        values = dev()
        history.append(trainer.step, **values)
        history.draw()
        told = [
            f"{kind} AP {values[f'dev_{kind}_AP']:.3f}"
            for kind in ("mask", "keypoint", "box")
            if f"dev_{kind}_AP" in values
        ]
        shown["AP"] = told[0].split()[-1]
        bar.set_postfix(shown)
        tqdm.write(f"step {trainer.step}: dev {', '.join(told)}")

    with StopRequest() as stop, bar:
        # A run that was killed while it measured, after it had saved, has that still to do.
        if history and dev and trainer.step and dev.due() and not _measured(history, trainer.step):
            measure(history, dev)
        for batch in _saving(batches, save):
            recent.append(_train(trainer, batch, stop.signal is not None))
            bar.update(size)
            due = trainer.step % REPORT_STEPS == 0 or trainer.step == trainer.total_steps
            if history and due:
                means = {k: round(sum(r[k] for r in recent) / len(recent), 4) for k in recent[0]}
                history.append(trainer.step, **means)
                shown = {"loss": f"{means['total']:.3f}"} | {
                    k: v for k, v in shown.items() if k != "loss"
                }
                bar.set_postfix(shown)
            if due:
                recent.clear()
            if history and dev and dev.due():
                save()  # what goes wrong in measuring must not cost the steps before
                measure(history, dev)
            if trainer.stopping:
                break
            if time.monotonic() - saved > 60 * trainer.config.train.save_minutes:
                save()
    save()
    if history:
        history.close()
    return (stop.signal or signal.SIGTERM) if trainer.stopping else None


def _measured(history: History, step: int) -> bool:
    """Whether the log has a measurement of this step."""
    return any(
        row["step"] == step and any(name.startswith("dev_") for name in row) for row in history.rows
    )


def _saving(
    batches: Iterable[dict[str, np.ndarray]], save: Callable[[], None]
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the batches; save if one cannot be made, since the weights are sound then."""
    try:
        yield from batches
    except DatasetError:
        save()
        raise


def _train(trainer: Trainer, batch: dict[str, np.ndarray], stop: bool) -> dict[str, float]:
    try:
        return trainer.train_batch(batch, stop)
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError) as error:
        if trainer.replicas == 1:
            raise
        first = str(error).strip().split("\n")[0]
        raise TrainingError(
            f"step {trainer.step} could not be finished with the other workers ({first}): start "
            "all again with the same command, they resume from the last checkpoint"
        ) from error
