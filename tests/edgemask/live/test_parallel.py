"""Several frames at once: each once, in order, at one pace, and never more than there are."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import Any

import pytest
from live_fakes import FakeBoard, FakeSource, Opener, SlowSegmenter, until

from edgemask.cli.running import _segmenters
from edgemask.live.engine import Engine
from edgemask.live.order import Order
from edgemask.settings import ModelSettings, PaceSettings, Settings

# ---- the order of what is finished


def test_what_is_finished_early_waits_for_what_was_begun_before() -> None:
    order, done = Order(3, threading.Event()), []
    numbers = [order.begin() for _ in range(3)]
    order.finish(numbers[2], lambda: done.append(2))
    order.finish(numbers[1], lambda: done.append(1))
    assert done == []
    order.finish(numbers[0], lambda: done.append(0))
    assert done == [0, 1, 2]


def test_nobody_gets_further_ahead_than_is_allowed() -> None:
    order, done = Order(2, threading.Event()), []
    for _ in range(4):
        order.begin()
    order.finish(1, lambda: done.append(1))  # one ahead of the first, which is not finished
    ahead = threading.Thread(target=order.finish, args=(2, lambda: done.append(2)))
    ahead.start()
    ahead.join(0.1)
    assert ahead.is_alive()
    order.finish(0, lambda: done.append(0))
    ahead.join(5)
    assert not ahead.is_alive()
    assert done == [0, 1, 2]


def test_after_a_stop_nobody_waits_for_one_that_hangs() -> None:
    stopped = threading.Event()
    order = Order(1, stopped)
    order.begin()
    ahead = threading.Thread(target=order.finish, args=(order.begin(), lambda: None))
    ahead.start()
    stopped.set()
    ahead.join(5)
    assert not ahead.is_alive()


# ---- the engine


class Together(SlowSegmenter):
    """Waits a little until all of its kind are at work."""

    def __init__(self, working: list[int], wanted: int) -> None:
        super().__init__()
        self.working, self.wanted, self.most = working, wanted, 0

    def __call__(self, rgb: Any) -> Any:
        self.working.append(1)
        patience = time.monotonic() + 0.3
        while len(self.working) < self.wanted and time.monotonic() < patience:
            time.sleep(0.001)
        self.most = max(self.most, len(self.working))
        time.sleep(0.005 * (int(rgb[0, 0, 0]) % 3))  # those begun later may be ready sooner
        found = super().__call__(rgb)
        self.working.pop()
        return found


def make(segmenters: Any, *, frames: int | None = None, **options: Any) -> Engine:
    def source() -> FakeSource:
        return FakeSource() if frames is None else FakeSource(live=False, frames=frames)

    return Engine(Opener(source), segmenters, board=FakeBoard(), **options)


def test_every_file_once_and_in_order_with_three_at_work() -> None:
    working: list[int] = []
    segmenters = [Together(working, 3) for _ in range(3)]
    engine = make(segmenters, frames=30)
    results = engine.subscribe(100)
    with engine:
        found = list(results)
    assert [r.frame.index for r in found] == [r.sequence for r in found] == list(range(30))
    assert max(segmenter.most for segmenter in segmenters) == 3
    assert sorted(n for s in segmenters for n, *_ in s.seen) == list(range(30))
    assert (engine.parallel, engine.status()["frames"], engine.status()["errors"]) == (3, 30, 0)


def test_a_frame_that_fails_holds_up_nobody() -> None:
    segmenters = [SlowSegmenter(fail_on=lambda number: number % 2 == 1) for _ in range(2)]
    engine = make(segmenters, frames=20)
    results = engine.subscribe(100)
    with engine:
        found = list(results)
    assert [r.frame.index for r in found] == list(range(0, 20, 2))
    assert engine.status()["errors"] == 10


def test_one_pace_for_all() -> None:
    began: list[float] = []

    class Noting(SlowSegmenter):
        def __call__(self, rgb: Any) -> Any:
            began.append(time.monotonic())
            return super().__call__(rgb)

    with make([Noting(), Noting()], max_fps=20.0):
        assert until(lambda: len(began) >= 8)
    # A late start makes the step before longer and the one after shorter, so not each is looked at.
    assert began[7] - began[0] > 0.9 * 7 / 20


def test_settings_reach_all_of_them() -> None:
    segmenters = [SlowSegmenter(), SlowSegmenter()]
    with make(segmenters) as engine:
        engine.configure(max_detections=7)
        assert until(lambda: all(s.seen and s.seen[-1][1] == 7 for s in segmenters))


def test_another_model_takes_the_place_of_all() -> None:
    old = [SlowSegmenter(name="first") for _ in range(2)]
    new = [SlowSegmenter(name="second") for _ in range(2)]
    engine = make(old, model="first", models={"first": lambda: old, "second": lambda: new})
    with engine:
        assert until(lambda: all(s.seen for s in old))
        engine.configure(model="second")
        assert until(lambda: all(len(s.seen) > 2 for s in new))
        counts = [len(s.seen) for s in old]
        assert engine.status()["model"]["name"] == "second"
        assert until(lambda: all(len(s.seen) > 5 for s in new))
        assert [len(s.seen) for s in old] == counts


def test_too_few_of_another_model_are_not_taken() -> None:
    old = [SlowSegmenter(name="first") for _ in range(2)]
    engine = make(old, model="first", models={"first": lambda: old, "second": SlowSegmenter})
    with engine:
        engine.configure(model="second")
        error = until(lambda: engine.status()["model"]["error"])
        assert error.endswith("first stays in use: 1 segmenters in place of 2")
        frames = engine.status()["frames"]
        assert until(lambda: engine.status()["frames"] > frames + 5)


def test_one_that_hangs_does_not_hold_up_the_end() -> None:
    hanging, released = threading.Event(), threading.Event()

    class Hanging(SlowSegmenter):
        def __call__(self, rgb: Any) -> Any:
            hanging.set()
            released.wait(20)
            return super().__call__(rgb)

    engine = make([SlowSegmenter(), Hanging()])
    engine.start()
    assert hanging.wait(5)
    before = time.monotonic()
    assert not engine.stop()
    assert time.monotonic() - before < 5
    released.set()


def test_what_a_reader_wants_is_prepared_by_the_thread_that_segmented() -> None:
    threads: set[str] = set()

    def prepare(frame: Any, instances: Any) -> int:
        threads.add(threading.current_thread().name)
        return int(frame.index * 10 + len(instances))

    engine = make([SlowSegmenter(), SlowSegmenter()], frames=6)
    plain, prepared = engine.subscribe(10), engine.subscribe(10, prepare)
    with engine:
        assert [r.prepared for r in prepared] == [1, 11, 21, 31, 41, 51]
        assert [r.prepared for r in plain] == [None] * 6
    assert threads == {"edgemask-infer"}


def test_the_indices_of_a_camera_rise() -> None:
    working: list[int] = []
    engine = make([Together(working, 1) for _ in range(3)])
    results = engine.subscribe(100)
    with engine:
        found = [results.get(10) for _ in range(20)]
    indices = [r.frame.index for r in found if r]
    assert all(a < b for a, b in pairwise(indices))


# ---- how many there are


@pytest.mark.parametrize(
    ("model", "max_fps", "wanted"),
    [
        (ModelSettings(threads=4), None, [2, 2]),
        (ModelSettings(threads=1), None, [1]),
        (ModelSettings(threads=4), 5.0, [4]),
        (ModelSettings(threads=4, parallel=4), 5.0, [1, 1, 1, 1]),
        (ModelSettings(threads=2, parallel=3), None, [1, 1, 1]),
    ],
)
def test_threads_are_shared(model: Any, max_fps: float | None, wanted: list[int]) -> None:
    settings = Settings(model=model, pace=PaceSettings(max_fps=max_fps))
    found = _segmenters(settings, "people-lite")
    assert [segmenter.threads for segmenter in found] == wanted
    assert len({id(segmenter.pack) for segmenter in found}) == 1
