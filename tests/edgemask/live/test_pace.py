"""Resting between two frames for longer than anybody wants to wait."""

from __future__ import annotations

import time
from typing import Any

import pytest
from live_fakes import FakeBoard, FakeSource, Opener, SlowSegmenter, until

from edgemask.live import tuning
from edgemask.live.engine import Engine


def resting() -> Engine:
    """One frame in 100 s."""
    return Engine(Opener(FakeSource), SlowSegmenter(), board=FakeBoard(), max_fps=0.01)


def test_it_does_not_hold_up_the_end() -> None:
    with resting() as engine:
        until(lambda: engine.status()["frames"] == 1)
        time.sleep(0.1)
        assert engine.stop()  # which gives up on what takes too long


def test_a_change_wakes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    period = tuning.period

    def counted(*rest: Any) -> float:
        asked.append(1)
        return period(*rest)

    monkeypatch.setattr(tuning, "period", counted)
    with resting() as engine:
        until(lambda: engine.status()["frames"] == 1)
        engine.configure(max_detections=5)
        time.sleep(0.2)
        assert len(asked) < 10
