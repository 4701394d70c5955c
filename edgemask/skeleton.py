"""Drawing the keypoints of persons: a line per bone and a dot per joint, anti-aliased.

The sides have colours of their own, since left and right are what a keypoint head confuses most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgemask.keypoints import NAMES, SKELETON

__all__ = ["SIDES", "draw_skeleton"]

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Colour = tuple[int, int, int]
Point = Sequence[float]

SIDES: dict[str, Colour] = {"left": (86, 180, 233), "right": (230, 159, 0), "": (245, 245, 245)}
"""Sky blue and orange of Okabe and Ito's colours, and white for what has no side."""

_CASING: Colour = (25, 25, 25)
_DOT = 1.7  # radius of a joint in widths of a line


def draw_skeleton(
    image: Pixels, keypoints: Floats, line: float, casing: float, threshold: float
) -> None:
    """Draw the keypoints of one person.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Drawn on in place.
    keypoints : ndarray of float32, shape (17, 3)
        x, y in pixels and score, in COCO's order.
    line, casing : float
        Width of the lines and of the dark edge around them, in pixels.
    threshold : float
        Keypoints with a lower score, and the lines to them, are not drawn.
    """
    sure = keypoints[:, 2] >= max(threshold, 1e-6)
    points = keypoints[:, :2].tolist()
    bones = [(a, b) for a, b in SKELETON if sure[a] and sure[b]]
    joints = np.flatnonzero(sure).tolist()
    # All edges first, so that the lines of a person join without borders between them.
    for a, b in bones:
        _stroke(image, points[a], points[b], line / 2 + casing, _CASING)
    for n in joints:
        _stroke(image, points[n], points[n], line * _DOT / 2 + casing, _CASING)
    for a, b in bones:
        _stroke(image, points[a], points[b], line / 2, SIDES[_common_side(a, b)])
    for n in joints:
        _stroke(image, points[n], points[n], line * _DOT / 2, SIDES[_side(n)])


def _side(keypoint: int) -> str:
    side = NAMES[keypoint].partition("_")[0]
    return side if side in SIDES else ""


def _common_side(first: int, second: int) -> str:
    """Return the side of a line: none if it leads across, the one that has a side otherwise."""
    sides = {_side(first), _side(second)} - {""}
    return sides.pop() if len(sides) == 1 else ""


def _stroke(image: Pixels, start: Point, end: Point, radius: float, colour: Colour) -> None:
    """Paint everything within `radius` of the line from `start` to `end` (x, y in pixels)."""
    height, width = image.shape[:2]
    reach = radius + 1
    left = max(math.floor(min(start[0], end[0]) - reach), 0)
    right = min(math.ceil(max(start[0], end[0]) + reach), width)
    top = max(math.floor(min(start[1], end[1]) - reach), 0)
    bottom = min(math.ceil(max(start[1], end[1]) + reach), height)
    if left >= right or top >= bottom:
        return
    x = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - start[0])
    y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - start[1]))[:, None]
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = x * np.float32(dx) + y * np.float32(dy)
    along /= np.float32(max(dx * dx + dy * dy, 1e-6))
    np.clip(along, 0, 1, out=along)
    distance = np.hypot(x - along * np.float32(dx), y - along * np.float32(dy))
    cover = np.clip(np.float32(radius + 0.5) - distance, 0, 1)[:, :, None]
    target = image[top:bottom, left:right]
    target[:] = np.rint(target * (1 - cover) + np.array(colour, np.float32) * cover)
