"""Drawn people: deterministic, moving, and where the truth says they are."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from edgemask.errors import SourceTimeout
from edgemask.sources import open_source
from edgemask.sources.synthetic import Synthetic


def test_frames_and_their_times():
    with open_source("synthetic:?people=2&size=160x120&fps=10&frames=4&seed=5") as source:
        frames = list(source)
        assert source.length == 4
        assert source.read() is None
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert [frame.sensor_ns for frame in frames] == [0, 100_000_000, 200_000_000, 300_000_000]
    assert [frame.name for frame in frames][-1] == "synthetic-000003"
    assert {frame.rgb.shape for frame in frames} == {(120, 160, 3)}
    assert not np.array_equal(frames[0].rgb, frames[1].rgb)


def test_the_seed_decides():
    def first(seed):
        return Synthetic(size=(160, 120), seed=seed).read().rgb

    np.testing.assert_array_equal(first(3), first(3))
    assert not np.array_equal(first(3), first(4))


def test_truth_is_where_the_pixels_are():
    # Without people there is the bare wall, so whoever stands before it shows in the difference.
    source = Synthetic(people=4, size=(320, 240), seed=1)
    wall = Synthetic(people=0, size=(320, 240), seed=1)
    assert wall.truth(0).masks.shape == (0, 240, 320)
    for index in (0, 7, 40):
        truth = source.truth(index)
        assert len(truth.masks) == len(truth.boxes) == len(truth.track_ids) == len(truth.class_ids)
        assert (truth.masks.sum(axis=0) <= 1).all()
        drawn = (Synthetic(people=4, size=(320, 240), seed=1)._draw(index)[0] != wall._wall).any(2)
        anybody = truth.masks.any(axis=0)
        assert not drawn[~anybody].any()
        assert drawn[anybody].mean() > 0.98
        for mask, (x0, y0, x1, y1) in zip(truth.masks, truth.boxes.astype(int), strict=True):
            assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
            assert mask[y0].any()
            assert mask[:, x1 - 1].any()


def test_truth_of_any_frame_in_any_order():
    source = Synthetic(people=3, size=(160, 120), seed=2)
    later = source.truth(9).masks
    for frame in source:
        if frame.index == 9:
            break
    np.testing.assert_array_equal(source.truth(9).masks, later)


def test_people_move_and_keep_their_numbers():
    source = Synthetic(people=3, size=(320, 240), seed=1)
    moved = 0
    for index in range(30):
        before, after = source.truth(index), source.truth(index + 1)
        for number in set(before.track_ids.tolist()) & set(after.track_ids.tolist()):
            a = before.boxes[before.track_ids.tolist().index(number)]
            b = after.boxes[after.track_ids.tolist().index(number)]
            moved += not np.array_equal(a, b)
    assert moved > 30


def test_live_drops_what_nobody_asks_for():
    with Synthetic(size=(32, 32), fps=50, frames=None, live=True) as source:
        first = source.read()
        time.sleep(0.2)
        late = source.read()
        assert source.live
        assert late.index >= first.index + 5
        assert source.dropped == late.index - 1
        # The clock of the scene is that of the world.
        assert late.sensor_ns == late.index * 20_000_000


def test_live_keeps_its_frame_rate():
    with Synthetic(size=(32, 32), fps=40, frames=None, live=True) as source:
        start = time.monotonic()
        frames = [source.read() for _ in range(5)]
        assert time.monotonic() - start >= 0.09
        assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})


def test_live_with_too_little_patience():
    with Synthetic(size=(32, 32), fps=0.1, live=True) as source:
        source.read()
        with pytest.raises(SourceTimeout, match=r"0\.05 s"):
            source.read(timeout=0.05)


def test_close_wakes_a_reader():
    source = Synthetic(size=(32, 32), fps=0.02, live=True)
    source.read()
    threading.Timer(0.05, source.close).start()
    start = time.monotonic()
    assert source.read(timeout=30) is None
    assert time.monotonic() - start < 10
