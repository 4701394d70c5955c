"""Entering, staying, leaving."""

from __future__ import annotations

import pytest

from edgemask.settings import ZoneSettings
from edgemask.watch.rules import Sighting, ZoneRule

SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
SIGHT = Sighting("person", 0.9, (0, 0, 10, 10))


class Play:
    """Plays a scene, one letter per frame of a tenth of a second for each track.

    ``#`` in the zone, ``o`` outside, ``.`` not found.
    """

    def __init__(self, **settings):
        defaults = {"min_seconds": 0.5, "leave_seconds": 0.3, "cooldown": 0}
        self.rule = ZoneRule(ZoneSettings("a", SQUARE, **{**defaults, **settings}))
        self.frame = 0
        self.counts = []

    def __call__(self, *scenes):
        changes = []
        for letters in zip(*scenes, strict=True):
            inside = {n: SIGHT for n, letter in enumerate(letters, 1) if letter == "#"}
            outside = {n for n, letter in enumerate(letters, 1) if letter == "o"}
            for change in self.rule.update(self.frame * 100_000_000, inside, outside):
                changes.append((self.frame, change.kind, change.track, round(change.seconds, 3)))
            self.counts.append(self.rule.count)
            self.frame += 1
        return changes


def test_enter_and_leave():
    play = Play()
    assert play("oo########ooooo") == [(7, "enter", 1, 0.5), (12, "leave", 1, 0.7)]
    assert play.counts == [0] * 7 + [1] * 5 + [0] * 3


def test_passing_through_is_no_visit():
    assert Play()("oo#####oooo#####o.....") == []


def test_outside_before_entering_starts_anew():
    assert Play()("###o#####o####") == []
    assert Play()("###o######o") == [(9, "enter", 1, 0.5)]


def test_not_found_before_entering_does_not():
    assert Play()("###..#") == [(5, "enter", 1, 0.5)]
    # But not longer than the patience for leaving.
    assert Play()("##...##..#") == []


def test_short_absence_is_no_leaving():
    assert Play()("######oo###..###") == [(5, "enter", 1, 0.5)]


def test_at_once():
    play = Play(min_seconds=0, leave_seconds=0)
    assert play("o#.#oo") == [
        (1, "enter", 1, 0.0),
        (2, "leave", 1, 0.0),
        (3, "enter", 1, 0.0),
        (4, "leave", 1, 0.0),
    ]


def test_cooldown_is_of_the_zone():
    play = Play(cooldown=2)
    changes = play("########" + "." * 22, "..########" + "." * 20)
    assert changes == [(5, "enter", 1, 0.5), (10, "leave", 1, 0.7)]
    # They count all the same.
    assert max(play.counts) == 2
    assert play("######", "......") == [(35, "enter", 1, 0.5)]


def test_two_who_enter_at_once_are_two_events_without_a_cooldown() -> None:
    assert Play(min_seconds=0)("#", "#") == [(0, "enter", 1, 0.0), (0, "enter", 2, 0.0)]


def test_tracks_are_apart():
    assert Play()("###.......", "...###....", "......####") == []
    assert Play()("########", ".######.") == [(5, "enter", 1, 0.5), (6, "enter", 2, 0.5)]


def test_slow_frames_do_not_end_a_visit():
    rule = ZoneRule(ZoneSettings("a", SQUARE, min_seconds=2, leave_seconds=1, cooldown=0))
    second = 1_000_000_000
    assert rule.update(0, {1: SIGHT}, set()) == []
    (change,) = rule.update(5 * second, {1: SIGHT}, set())
    assert change.kind == "enter"
    assert rule.update(10 * second, {1: SIGHT}, set()) == []
    (change,) = rule.update(15 * second, {}, set())
    assert (change.kind, change.seconds) == ("leave", 10.0)


def test_the_last_sighting_is_told():
    rule = ZoneRule(ZoneSettings("a", SQUARE, min_seconds=0, leave_seconds=0, cooldown=0))
    later = Sighting("person", 0.7, (5, 5, 15, 15))
    rule.update(0, {1: SIGHT}, set())
    rule.update(1, {1: later}, set())
    (change,) = rule.update(2, {}, set())
    assert change.sighting == later


@pytest.mark.parametrize("frames", [10_000])
def test_nothing_is_kept_of_those_who_have_gone(frames):
    rule = ZoneRule(ZoneSettings("a", SQUARE, min_seconds=0, leave_seconds=0.3, cooldown=0))
    for n in range(frames):
        rule.update(n * 100_000_000, {n: SIGHT}, set())
    assert rule.count <= 5
