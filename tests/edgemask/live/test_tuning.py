"""Bounds of the settings, and what the governor leaves of them."""

from __future__ import annotations

from typing import Any

import pytest
from live_fakes import SlowSegmenter

from edgemask.errors import InputError
from edgemask.live.governor import LADDER, GovernorState
from edgemask.live.tuning import Choice, Tuning, checked, effective, limits_of, period

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
        {"max_proposals": 50},
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
        {"max_proposals": 51},
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
    settings = {
        "score_threshold": 0.5, "max_detections": 20, "max_proposals": 50, "short_side": 320,
        "max_fps": 5.0, "model": "people",
    }  # fmt: skip
    full = effective(settings, GovernorState(), LIMITS)
    assert full == {n: v for n, v in settings.items() if n not in ("max_fps", "model")}
    least = effective(settings, GovernorState(len(LADDER) - 1), LIMITS)
    assert least["score_threshold"] == 0.5
    assert least["max_detections"] == 5
    assert 0 < least["max_proposals"] < 30
    assert least["short_side"] < 320
    assert least["short_side"] % 32 == 0


def test_the_governor_never_asks_for_more_or_for_nothing() -> None:
    for level in range(len(LADDER)):
        for side in (160, 200, 320, 480):
            settings = {"max_detections": 1, "max_proposals": 1, "short_side": side}
            values = effective(settings, GovernorState(level), LIMITS)
            assert values["max_detections"] == values["max_proposals"] == 1
            assert min(side, 160) <= values["short_side"] <= side


def test_period() -> None:
    assert period(0.1, None, 1.0) == pytest.approx(0.1)
    assert period(0.1, 5.0, 1.0) == pytest.approx(0.2)
    assert period(0.1, 5.0, 0.5) == pytest.approx(0.4)
    assert period(0.3, 5.0, 0.5) == pytest.approx(0.6)
    assert period(0.1, None, 0.25) == pytest.approx(0.4)


def test_what_a_segmenter_comes_with() -> None:
    tuning = Tuning.of(SlowSegmenter(max_proposals=1000), 5.0, ["a", "b"], "b")
    assert tuning.settings == {
        "max_fps": 5.0, "score_threshold": 0.5, "max_detections": 20, "max_proposals": 50,
        "short_side": 320, "model": "b",
    }  # fmt: skip
    assert tuning.limits["model"] == Choice(("a", "b"))
    assert "model" not in Tuning.of(SlowSegmenter()).settings


@pytest.mark.parametrize("value", ["c", "/etc/passwd", "../b", "", None, 1, ["a"], {}])
def test_a_choice_is_one_of_its_names(value: Any) -> None:
    tuning = Tuning.of(SlowSegmenter(), None, ["a", "b"], "b")
    with pytest.raises(InputError, match="give one of a, b"):
        tuning.changed({"model": value})
    assert tuning.changed({"model": "a"}).settings["model"] == "a"


def test_another_model_keeps_what_was_set_by_hand() -> None:
    old = Tuning.of(SlowSegmenter(), 5.0, ["a", "b"], "a")
    by_hand = {"score_threshold": 0.7, "max_proposals": 10, "max_fps": None}
    new = old.changed(by_hand).moved_to(SlowSegmenter(own_short_side=256), "b")
    assert {name: new.settings[name] for name in by_hand} == by_hand
    assert new.settings["short_side"] == 256  # the model's own, as before
    assert new.settings["model"] == "b"
    assert (new.limits["short_side"], new.own["short_side"]) != (old.limits["short_side"], 320)


def test_another_model_has_other_bounds() -> None:
    old = Tuning.of(SlowSegmenter(), None, ["a", "b"], "a").changed({"short_side": 480})
    new = old.moved_to(SlowSegmenter(own_short_side=128), "b")
    assert new.settings["short_side"] == 192
    assert checked(new.settings, new.limits) == new.settings
    bare = old.moved_to(lambda rgb: None, "b")  # and other settings
    assert bare.settings == {"max_fps": None, "model": "b"}
    back = bare.moved_to(SlowSegmenter(), "a")
    assert back.settings["short_side"] == 320
