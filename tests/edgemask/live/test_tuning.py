"""Bounds of the settings, and what the governor leaves of them."""

from __future__ import annotations

from typing import Any

import pytest
from live_fakes import SlowSegmenter

from edgemask.errors import InputError
from edgemask.live.governor import LADDER, GovernorState
from edgemask.live.tuning import checked, effective, limits_of, period

LIMITS = limits_of(SlowSegmenter())


def test_bounds_follow_the_pack() -> None:
    assert (LIMITS["short_side"].low, LIMITS["short_side"].high) == (160, 480)
    assert LIMITS["short_side"].step == 32


def test_bounds_include_what_was_asked_for() -> None:
    assert limits_of(SlowSegmenter(short_side=64))["short_side"].low == 64
    assert limits_of(SlowSegmenter(short_side=640))["short_side"].high == 640
    assert limits_of(SlowSegmenter(max_detections=300))["max_detections"].high == 300


def test_what_a_segmenter_does_not_have_cannot_be_set() -> None:
    limits = limits_of(lambda rgb: None)
    assert set(limits) == {"max_fps"}
    with pytest.raises(InputError, match="'score_threshold' cannot be set; give max_fps"):
        checked({"score_threshold": 0.5}, limits)


@pytest.mark.parametrize(
    "values",
    [
        {"score_threshold": 0},
        {"score_threshold": 0.37, "max_detections": 1},
        {"max_fps": None},
        {"max_fps": 12.5},
        {"short_side": 200},
    ],
)
def test_good_values(values: dict[str, Any]) -> None:
    assert checked(values, LIMITS) == values


@pytest.mark.parametrize(
    "values",
    [
        {"score_threshold": 1.01},
        {"score_threshold": "0.5"},
        {"score_threshold": None},
        {"score_threshold": True},
        {"score_threshold": float("nan")},
        {"max_detections": 0},
        {"max_detections": 2.5},
        {"max_detections": 10**9},
        {"short_side": 10**6},
        {"max_fps": 0},
        {"max_fps": float("inf")},
        {"max_fps": [1]},
        {"pack": "/etc/passwd"},
    ],
)
def test_bad_values(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"; give "):
        checked(values, LIMITS)


def test_the_governor_takes_its_share() -> None:
    settings = {"score_threshold": 0.5, "max_detections": 20, "short_side": 320, "max_fps": 5.0}
    full = effective(settings, GovernorState(), LIMITS)
    assert full == {"score_threshold": 0.5, "max_detections": 20, "short_side": 320}
    least = effective(settings, GovernorState(len(LADDER) - 1), LIMITS)
    assert least["score_threshold"] == 0.5
    assert least["max_detections"] == 5
    assert least["short_side"] < 320
    assert least["short_side"] % 32 == 0


def test_the_governor_never_asks_for_more_or_for_nothing() -> None:
    for level in range(len(LADDER)):
        for side in (160, 200, 320, 480):
            settings = {"max_detections": 1, "short_side": side}
            values = effective(settings, GovernorState(level), LIMITS)
            assert values["max_detections"] == 1
            assert min(side, 160) <= values["short_side"] <= side


def test_period() -> None:
    assert period(0.1, None, 1.0) == pytest.approx(0.1)
    assert period(0.1, 5.0, 1.0) == pytest.approx(0.2)
    assert period(0.1, 5.0, 0.5) == pytest.approx(0.4)
    assert period(0.3, 5.0, 0.5) == pytest.approx(0.6)
    assert period(0.1, None, 0.25) == pytest.approx(0.4)
