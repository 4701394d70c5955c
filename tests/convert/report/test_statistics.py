"""Statistics against cases that were counted by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from edgemask_convert.report.matching import Matches, match
from edgemask_convert.report.statistics import (
    calibration,
    empty_images,
    error_types,
    false_alarms,
    image_quality,
    missed_by_size,
    precision_at_recall,
    score_curve,
)

from .conftest import result
from .test_matching import scene, square


@pytest.fixture
def matches() -> Matches:
    """Three objects; found: one well, one twice, one badly, one as another class, one nowhere."""
    data = scene(
        result(1, 1, square(0), 1), result(1, 1, square(20), 1), result(1, 2, square(45), 1)
    )
    found = [
        result(1, 1, square(0), 0.95),  # right
        result(1, 1, square(1), 0.85),  # the same again
        result(1, 1, square(26), 0.75),  # IoU 1/4
        result(1, 1, square(45), 0.65),  # another class
        result(1, 2, square(20, 2), 0.55),  # a corner of another class's object: IoU 4/100
        result(1, 2, square(26), 0.35),  # IoU 1/4 with an object of another class
    ]
    return match(found, data, [1, 2])


def test_error_types(matches: Matches) -> None:
    right = {"right": 1, "duplicate": 1, "place": 1, "class": 1, "both": 0, "background": 1}
    assert error_types(matches, 0.5) == right
    assert error_types(matches, 0.3) == right | {"both": 1}
    assert sum(error_types(matches, 0.9).values()) == 1


def test_missed_by_size(matches: Matches) -> None:
    assert missed_by_size(matches, 0.5) == {"small": (2, 3), "medium": (0, 0), "large": (0, 0)}
    assert missed_by_size(matches, 0.99)["small"] == (3, 3)
    larger = dataclasses.replace(matches, area=np.array([1024.0, 9216.0, 100.0]))
    assert missed_by_size(larger, 0.5) == {"small": (1, 1), "medium": (0, 1), "large": (1, 1)}


def test_score_curve(matches: Matches) -> None:
    curve = score_curve(matches)
    np.testing.assert_allclose(curve.score, [0.95, 0.85, 0.75, 0.65, 0.55, 0.35])
    np.testing.assert_allclose(curve.precision, 1 / np.arange(1, 7))
    np.testing.assert_allclose(curve.recall, 1 / 3)
    np.testing.assert_allclose(curve.f1, 2 / (np.arange(1, 7) + 3))
    assert curve.best() == 0.95
    assert curve.at(0.8) == pytest.approx((1 / 2, 1 / 3, 2 / 5))
    precision, recall, f1 = curve.at(0.99)
    assert np.isnan(precision)
    assert (recall, f1) == (0, 0)


def test_the_best_score_as_it_is_shown_keeps_its_own_detection() -> None:
    data = scene(result(1, 1, square(0), 1))
    curve = score_curve(match([result(1, 1, square(0), 0.4999)], data, [1]))
    assert curve.best() == 0.49
    assert curve.at(curve.best())[2] == 1


def test_equal_scores_stand_or_fall_together() -> None:
    data = scene(result(1, 1, square(0), 1))
    found = [result(1, 1, square(0), 0.7), result(1, 1, square(40), 0.7)]
    curve = score_curve(match(found, data, [1]))
    assert curve.score.tolist() == [0.7]
    assert curve.precision.tolist() == [0.5]


def test_nothing_found() -> None:
    empty = match([], scene(result(1, 1, square(0), 1)), [1])
    assert score_curve(empty).best() == 0.5
    assert calibration(empty).error == 0
    assert error_types(empty, 0.5)["right"] == 0
    assert image_quality(empty, 0.5) == {1: (0.0, 1)}


def test_calibration(matches: Matches) -> None:
    found = calibration(matches, bins=2)
    assert found.count.tolist() == [1, 5]
    np.testing.assert_allclose(found.precision, [0, 1 / 5])
    np.testing.assert_allclose(found.score, [0.35, 0.75])
    assert found.error == pytest.approx((0.35 + 5 * 0.55) / 6)
    above = calibration(matches, bins=2, least=0.5)
    assert above.count.tolist() == [0, 5]
    assert np.isnan(above.precision[0])
    assert above.error == pytest.approx(0.55)


def test_a_score_of_one_is_in_the_last_bin() -> None:
    data = scene(result(1, 1, square(0), 1))
    found = calibration(match([result(1, 1, square(0), 1.0)], data, [1]), bins=10)
    assert found.count.tolist() == [0] * 9 + [1]
    assert found.error == 0


def test_false_alarms() -> None:
    data = scene()
    for number in (2, 3):
        data["images"].append({**data["images"][0], "id": number})
    found = [result(1, 1, square(0), 0.9), result(1, 1, square(30), 0.4),
             result(2, 2, square(0), 0.6)]  # fmt: skip
    total, affected = false_alarms(match(found, data, [1, 2]), [1, 2, 3], np.array([0.3, 0.5, 1]))
    assert total.tolist() == [3, 2, 0]
    assert affected.tolist() == [2, 2, 0]


def test_empty_images_are_those_that_promise_it() -> None:
    images: list[dict[str, Any]] = [
        {"id": 1},
        {"id": 2, "labeled_cats": [1, 2, 3]},
        {"id": 3, "labeled_cats": [1]},  # class 2 may be there
        {"id": 4, "exhaustive": 0},
        {"id": 5},
        {"id": 6},
    ]
    annotations = [{"image_id": 5, "category_id": 2}, {"image_id": 6, "category_id": 9}]
    data = {"images": images, "annotations": annotations}
    assert empty_images(data, (1, 2)) == [1, 2, 6]


def test_image_quality(matches: Matches) -> None:
    """One right with IoU 1, four wrong, two missed."""
    assert image_quality(matches, 0.5) == {1: (1 / (1 + 6 / 2), 6)}


def test_medium_objects_reach_to_96_pixels(matches: Matches) -> None:
    larger = dataclasses.replace(matches, area=np.array([1024.0, 9215.0, 5000.0]))
    assert missed_by_size(larger, 0.5)["medium"] == (2, 3)


def test_the_right_place_of_another_class_is_an_error_of_class() -> None:
    """Although an object of its own class is near: IoU 1/3, and 9/11 with the other."""
    data = scene(result(1, 1, square(0), 1), result(1, 2, square(6), 1))
    counts = error_types(match([result(1, 1, square(5), 0.9)], data, [1, 2]), 0.5)
    assert counts["class"] == 1
    assert counts["place"] == 0


def test_what_lies_in_a_crowd_counts_for_nothing() -> None:
    data = scene({**result(1, 1, square(0), 1), "iscrowd": 1}, result(1, 1, square(30), 1))
    found = [result(1, 1, square(0), 0.9), result(1, 1, square(30), 0.8)]
    matches = match(found, data, [1])
    assert score_curve(matches).precision.tolist() == [1]
    assert image_quality(matches, 0.5) == {1: (1.0, 0)}


def test_everything_found_is_a_precision_of_one_everywhere() -> None:
    data = scene(result(1, 1, square(0), 1))
    curve = precision_at_recall(match([result(1, 1, square(0), 0.9)], data, [1]), 0.5)
    assert curve.tolist() == [1.0] * 101
