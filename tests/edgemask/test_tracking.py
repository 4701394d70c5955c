"""Who is who from frame to frame, and what time it is."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import make_instances

from edgemask.tracking import FrameClock, Tracker, generalised_iou

SECOND = 1_000_000_000


def test_generalised_iou():
    a = [[0, 0, 10, 10]]
    b = [[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [20, 0, 30, 10], [1000, 0, 1010, 10]]
    same, half, touching, apart, far = generalised_iou(a, b)[0].tolist()
    assert same == 1
    assert half == pytest.approx(1 / 3)
    assert touching == 0
    assert apart == pytest.approx(-1 / 3)
    assert -1 < far < -0.95
    assert generalised_iou([[3, 3, 3, 3]], [[3, 3, 3, 3]]).tolist() == [[0.0]]


def test_somebody_who_walks_keeps_the_number():
    tracker = Tracker(2 * SECOND)
    for n in range(30):
        box = [10 + 6 * n, 20, 40 + 6 * n, 90]
        assert tracker.match(n * SECOND // 10, [box], [1]) == [1]


def test_two_who_pass_each_other_keep_their_numbers():
    tracker = Tracker(2 * SECOND)
    ids = []
    for n in range(40):
        left, right = [10 + 4 * n, 20, 40 + 4 * n, 90], [170 - 4 * n, 45, 200 - 4 * n, 115]
        ids.append(tracker.match(n * SECOND // 10, [left, right], [1, 1]))
    assert ids == [[1, 2]] * 40


def test_the_order_of_instances_does_not_matter():
    tracker = Tracker(2 * SECOND)
    a, b = [10, 20, 40, 90], [110, 20, 140, 90]
    assert tracker.match(0, [a, b], [1, 1]) == [1, 2]
    assert tracker.match(1, [b, a], [1, 1]) == [2, 1]


def test_the_best_pair_is_matched_first():
    tracker = Tracker(2 * SECOND)
    tracker.match(0, [[0, 0, 30, 60]], [1])
    # The first would do, but the second is the better match.
    assert tracker.match(1, [[15, 0, 45, 60], [2, 0, 32, 60]], [1, 1]) == [2, 1]


def test_two_boxes_never_share_a_track() -> None:
    tracker = Tracker(2 * SECOND)
    tracker.match(0, [[0, 0, 30, 60], [200, 0, 230, 60]], [1, 1])
    assert tracker.match(1, [[2, 0, 32, 60], [8, 0, 38, 60]], [1, 1]) == [1, 3]


def test_two_tracks_never_share_a_box() -> None:
    tracker = Tracker(2 * SECOND)
    tracker.match(0, [[0, 0, 30, 60], [6, 0, 36, 60]], [1, 1])
    # The first box is more like the second track than the second box is, but it has its own.
    assert tracker.match(1, [[0, 0, 30, 60], [40, 0, 70, 60]], [1, 1]) == [1, 2]


def test_slow_boards_see_people_jump():
    tracker = Tracker(2 * SECOND)
    assert tracker.match(0, [[0, 0, 30, 90]], [1]) == [1]
    assert tracker.match(1 * SECOND, [[65, 0, 95, 90]], [1]) == [1]
    assert tracker.match(2 * SECOND, [[170, 0, 200, 90]], [1]) == [1]  # who walks is expected there
    resting = Tracker(2 * SECOND)
    for second in range(3):
        assert resting.match(second * SECOND, [[65, 0, 95, 90]], [1]) == [1]
    assert resting.match(3 * SECOND, [[170, 0, 200, 90]], [1]) == [2]


@pytest.mark.parametrize("rate", [2, 5, 15])
def test_two_who_hide_each_other_keep_their_numbers(rate: int):
    tracker = Tracker(2 * SECOND)
    for n in range(4 * rate):
        x = 60.0 * n / rate  # one goes right, the other left, and they meet in the middle
        left, right = [x, 20, x + 30, 90], [210 - x, 20, 240 - x, 90]
        hidden = abs(105 - x) < 25
        found = tracker.match(
            n * SECOND // rate, [right] if hidden else [left, right], [1, 1][hidden:]
        )
        assert found == ([2] if hidden else [1, 2])


def test_who_was_lost_is_not_expected_to_go_on_for_ever():
    tracker = Tracker(10 * SECOND)
    for n in range(10):
        tracker.match(n * SECOND // 10, [[10 * n, 0, 10 * n + 30, 90]], [1])
    # At 100 pixels a second they would be 500 farther on by now.
    assert tracker.match(6 * SECOND, [[590, 0, 620, 90]], [1]) == [2]
    assert tracker.match(6 * SECOND, [[200, 0, 230, 90], [590, 0, 620, 90]], [1, 1]) == [1, 2]


def test_frames_of_the_same_time_do_not_matter():
    tracker = Tracker(2 * SECOND)
    for _ in range(3):
        assert tracker.match(0, [[0, 0, 30, 90]], [1]) == [1]
        assert tracker.match(0, [[5, 0, 35, 90]], [1]) == [1]


def test_frames_of_the_same_time_do_not_make_anybody_go_anywhere() -> None:
    tracker = Tracker(2 * SECOND)
    tracker.match(0, [[0, 0, 30, 90]], [1])
    tracker.match(0, [[5, 0, 35, 90]], [1])
    assert tracker.match(SECOND, [[500, 0, 530, 90]], [1]) == [2]


def test_boxes_that_tremble_are_not_expected_elsewhere() -> None:
    tracker = Tracker(2 * SECOND)
    for n in range(30):
        x = 103 if n % 2 else 97
        assert tracker.match(n * SECOND // 30, [[x, 0, x + 30, 90]], [1]) == [1]
    assert tracker.match(2 * SECOND, [[100, 0, 130, 90]], [1]) == [1]


def test_another_class_is_somebody_else():
    tracker = Tracker(2 * SECOND)
    assert tracker.match(0, [[0, 0, 30, 60]], [1]) == [1]
    assert tracker.match(1, [[0, 0, 30, 60]], [18]) == [2]


def test_lost_ones_are_remembered_for_a_while():
    tracker = Tracker(2 * SECOND)
    box = [[0, 0, 30, 60]]
    assert tracker.match(0, box, [1]) == [1]
    assert tracker.match(1 * SECOND, np.zeros((0, 4)), []) == []
    assert tracker.match(2 * SECOND, box, [1]) == [1]
    assert tracker.match(3 * SECOND, [], []) == []
    assert tracker.match(4 * SECOND + 1, [], []) == []
    assert tracker.match(4 * SECOND + 2, box, [1]) == [2]


def test_time_without_frames_is_no_absence_unless_it_is_long():
    tracker = Tracker(1 * SECOND)
    box = [[0, 0, 30, 60]]
    assert tracker.match(0, box, [1]) == [1]
    assert tracker.match(5 * SECOND, box, [1]) == [1]
    assert tracker.match(70 * SECOND, box, [1]) == [2]


# ---- the clock


def test_clock_follows_the_camera():
    clock = FrameClock()
    arrivals = [0, 5, 90, 1000]
    assert [clock(10_000 + 30 * n, a) for n, a in enumerate(arrivals)] == [0, 30, 60, 90]


def test_clock_without_a_camera_clock_follows_arrival():
    clock = FrameClock()
    assert [clock(None, a) for a in (100, 130, 190)] == [0, 30, 90]


def test_files_without_a_clock_are_a_25th_of_a_second_each() -> None:
    clock = FrameClock(live=False)
    assert [clock(None, arrival) for arrival in (0, 5, 5 * SECOND)] == [0, 40_000_000, 80_000_000]


def test_clock_never_goes_back():
    clock = FrameClock()
    times = [clock(500, 0), clock(530, 40), clock(3, 80), clock(33, 120), clock(None, 150)]
    assert times == [0, 30, 70, 100, 130]


def test_clock_does_not_believe_a_stream_that_jumps_ahead():
    minute = 60 * SECOND
    stamps, arrivals = [0, SECOND, 60 * minute, 60 * minute + SECOND], [0, 1, 2, 3]
    live, film = FrameClock(), FrameClock(live=False)
    assert [
        live(s, a * SECOND) // SECOND for s, a in zip(stamps, arrivals, strict=True)
    ] == arrivals
    assert [film(s, a) for s, a in zip(stamps, arrivals, strict=True)] == stamps  # a pause in it
    slow = FrameClock()  # one frame in two minutes
    assert [slow(n * 2 * minute, n * 2 * minute) for n in range(3)] == [0, 2 * minute, 4 * minute]


# ---- instances


def test_instances_get_their_tracks():
    masks = np.zeros((2, 30, 40), bool)
    masks[0, 5:20, 2:10] = masks[1, 5:20, 25:35] = True
    found = make_instances(masks)
    tracker = Tracker()
    tracked = tracker.update(found, 0)
    assert tracked.track_ids.tolist() == [1, 2]
    assert found.track_ids.tolist() == [-1, -1]
    assert np.array_equal(tracked.masks.to_dense(), masks)
    assert tracker.update(found[::-1], 1).track_ids.tolist() == [2, 1]
    assert tracked.keypoints is None


def test_keypoints_stay():
    found = make_instances(np.ones((1, 8, 8), bool))
    found.keypoints = np.ones((1, 17, 3), np.float32)
    assert np.array_equal(Tracker().update(found, 0).keypoints, found.keypoints)
