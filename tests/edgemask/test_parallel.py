"""Frames that are segmented side by side come out in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from live_fakes import SlowSegmenter, frame

from edgemask.parallel import segmented


class Pair(SlowSegmenter):
    """Waits a little for the other one; frames with an even number take longer."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self.barrier, self.met = barrier, 0

    def __call__(self, rgb: Any) -> Any:
        try:
            self.barrier.wait(1)
            self.met += 1
        except threading.BrokenBarrierError:
            self.barrier.reset()
        time.sleep(0.01 * (int(rgb[0, 0, 0]) % 2 == 0))
        return super().__call__(rgb)


def frames(count: int, read: list[int]) -> Iterator[Any]:
    for number in range(count):
        read.append(number)
        yield frame(number)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_all_frames_in_order(count: int) -> None:
    segmenters = [SlowSegmenter() for _ in range(count)]
    found = list(segmented(frames(12, []), segmenters))
    assert [f.index for f, _ in found] == list(range(12))
    assert all(len(instances) == 1 for _, instances in found)
    assert sorted(n for s in segmenters for n, *_ in s.seen) == list(range(12))


def test_two_are_at_work_at_once() -> None:
    barrier = threading.Barrier(2)
    pair = [Pair(barrier), Pair(barrier)]
    assert [f.index for f, _ in segmented(frames(10, []), pair)] == list(range(10))
    assert pair[0].met + pair[1].met >= 8


def test_no_more_is_read_than_is_worked_on() -> None:
    read: list[int] = []
    found = segmented(frames(100, read), [SlowSegmenter(), SlowSegmenter()])
    next(found)
    assert read == [0, 1, 2]
    found.close()
    assert read == [0, 1, 2]


def test_an_error_comes_in_its_place() -> None:
    segmenters = [SlowSegmenter(fail_on=lambda number: number == 3) for _ in range(2)]
    found = segmented(frames(10, []), segmenters)
    assert [next(found)[0].index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="the network failed"):
        next(found)


def test_what_was_read_before_an_error_is_not_lost() -> None:
    def broken() -> Iterator[Any]:
        yield from frames(4, [])
        raise KeyboardInterrupt

    found = segmented(broken(), [SlowSegmenter(), SlowSegmenter()])
    assert [next(found)[0].index for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(KeyboardInterrupt):
        next(found)


def test_threads_end_with_the_work() -> None:
    before = threading.active_count()
    found = segmented(frames(10, []), [SlowSegmenter(), SlowSegmenter()])
    next(found)
    found.close()
    assert threading.active_count() == before
