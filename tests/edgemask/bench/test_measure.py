"""Two clocks, and statistics of what they say."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest

from edgemask.bench.measure import Clocks, Samples, percentile, spread


class Steps:
    """A pipeline that reads its clock as the real one does: start, each step, end."""

    def __init__(self, clocks: Clocks, frames: list[dict[str, float]]) -> None:
        self.clocks, self.frames = clocks, iter(frames)
        self.timings: dict[str, float] = {}

    def __call__(self, rgb: Any, short_side: int | None = None) -> list[int]:
        self.timings = {}
        self.clocks()
        for name, seconds in next(self.frames).items():
            end = time.process_time() + seconds
            while time.process_time() < end:
                pass
            self.clocks()
            self.timings[name] = seconds * 1e3
        self.clocks()
        self.timings["total"] = 0.0
        return [1, 2]


def test_percentile() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2
    assert percentile([1.0, 2.0], 50) == 1.5
    assert percentile([7.0], 95) == 7
    assert percentile(list(range(101)), 95) == 95
    assert spread([1.0, 2.0, 4.0]) == {"p50": 2.0, "p95": 3.8}


def test_each_step_gets_its_own_time() -> None:
    clocks = Clocks()
    frames = [{"resize": 0.002, "backbone": 0.006}] * 3
    samples = Samples(Steps(clocks, frames), clocks)
    assert [samples.take(None) for _ in frames] == [2, 2, 2]
    found = samples.summary()
    assert found["frames"] == 3
    resize, backbone = found["stages"]
    assert (resize["name"], backbone["name"]) == ("resize", "backbone")
    # At least so long: what spins cannot be faster.
    assert resize["cpu_ms"]["p50"] >= 2
    assert backbone["cpu_ms"]["p50"] >= 6
    assert backbone["wall_ms"]["p50"] >= backbone["cpu_ms"]["p50"] * 0.9
    assert found["cpu_ms"]["p50"] >= 8
    assert sum(stage["cpu_share"] for stage in found["stages"]) == pytest.approx(1, abs=1e-3)
    assert found["outside_networks"] == resize["cpu_share"]


def test_a_frame_is_the_sum_of_its_steps() -> None:
    clocks = Clocks()
    samples = Samples(Steps(clocks, [{"resize": 0.001, "backbone": 0.001}]), clocks)
    samples.take(None)
    for clock in (samples.wall, samples.cpu):
        (frame,), (resize,), (backbone,) = (clock[n] for n in ("frame", "resize", "backbone"))
        assert frame == pytest.approx(resize + backbone, abs=1e-6)


def test_thousands_of_frames_take_next_to_no_memory() -> None:
    clocks = Clocks()
    samples = Samples(Steps(clocks, [dict.fromkeys("abcdefghijkl", 0.0)] * 2000), clocks)
    tracemalloc.start()
    try:
        for _ in range(2000):
            samples.take(None)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 1_000_000


def test_a_step_that_some_frames_lack() -> None:
    """A frame without detections has no mask stage."""
    clocks = Clocks()
    frames = [{"backbone": 0.001, "mask_head": 0.001}, {"backbone": 0.001}]
    samples = Samples(Steps(clocks, frames), clocks)
    for _ in frames:
        samples.take(None)
    found = samples.summary()
    assert [stage["name"] for stage in found["stages"]] == ["backbone", "mask_head"]
    assert found["outside_networks"] == 0
    assert sum(stage["cpu_share"] for stage in found["stages"]) == pytest.approx(1, abs=1e-3)


def test_until() -> None:
    clocks = Clocks()
    samples = Samples(Steps(clocks, [{"backbone": 0.0}] * 9), clocks)
    assert list(samples.until(None, lambda count: count < 4)) == [1, 2, 3, 4]
