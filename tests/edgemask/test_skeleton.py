"""Skeletons: what is sure is drawn where it is, in the colour of its side."""

from __future__ import annotations

import numpy as np
import pytest

from edgemask.keypoints import NAMES
from edgemask.skeleton import SIDES, draw_skeleton


def person(**places: tuple[float, float, float]) -> np.ndarray:
    """Keypoints (17, 3) of which only some are there."""
    points = np.zeros((17, 3), np.float32)
    for name, place in places.items():
        points[NAMES.index(name)] = place
    return points


def drawn(points: np.ndarray, line: float = 4.0, threshold: float = 0.5) -> np.ndarray:
    image = np.full((60, 80, 3), 100, np.uint8)
    draw_skeleton(image, points, line, 1.0, threshold)
    return image


@pytest.mark.parametrize(
    ("first", "second", "side"),
    [
        ("left_elbow", "left_wrist", "left"),
        ("right_knee", "right_ankle", "right"),
        ("left_hip", "right_hip", ""),
        ("nose", "left_eye", "left"),
    ],
)
def test_lines_have_the_colour_of_their_side(first: str, second: str, side: str) -> None:
    image = drawn(person(**{first: (20.5, 30.0, 0.9), second: (60.5, 30.0, 0.9)}))
    assert image[30, 40].tolist() == list(SIDES[side])
    assert image[30 + 10, 40].tolist() == [100, 100, 100]
    assert image[30, 10].tolist() == [100, 100, 100]
    # 4 wide, then an edge of 1 that is darker than the image
    assert image[32, 40].max() < 50


def test_unsure_joints_and_their_lines_are_not_drawn() -> None:
    points = person(left_elbow=(20.5, 30.5, 0.9), left_wrist=(60.5, 30.5, 0.49))
    image = drawn(points)
    assert image[30, 20].tolist() == list(SIDES["left"])
    assert (image[:, 30:] == 100).all()
    assert (drawn(points, threshold=0.95) == 100).all()


def test_what_has_no_score_is_never_drawn() -> None:
    assert (drawn(person(), threshold=0.0) == 100).all()


def test_line_width() -> None:
    points = person(left_elbow=(20.5, 30, 0.9), left_wrist=(60.5, 30, 0.9))
    changed = [int((drawn(points, line)[:, 40] != 100).any(axis=1).sum()) for line in (2, 4, 10)]
    assert changed == [4, 6, 12]  # the line and an edge of 1 on either side


def test_outside_of_the_image() -> None:
    points = person(nose=(-30, -30, 0.9), left_eye=(200, 20, 0.9), right_eye=(5, 300, 0.9))
    assert drawn(points).shape == (60, 80, 3)
    far = person(left_hip=(500, 500, 0.9), left_knee=(600, 600, 0.9))
    assert (drawn(far) == 100).all()
