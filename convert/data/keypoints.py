"""Keypoints of COCO annotations, in the order of :data:`edgemask.keypoints.NAMES`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemask.keypoints import NAMES

from ..config import ConfigError, ModelConfig
from .coco_fields import MAX_COORDINATE

if TYPE_CHECKING:
    from .dataset import Record


def keypoint_order(category: dict[str, Any]) -> list[int]:
    """Where each keypoint of a category goes, -1 for one that COCO's persons do not have.

    A category that does not name its keypoints has COCO's.
    """
    names = category.get("keypoints") or NAMES
    return [NAMES.index(name) if name in NAMES else -1 for name in names]


def read_keypoints(annotation: dict[str, Any], order: list[int]) -> np.ndarray:
    """The labelled keypoints of one object.

    Parameters
    ----------
    annotation : dict
        With or without COCO's ``keypoints``: x, y, visibility of each, where x and y are indices
        of pixels and 0 means not labelled.
    order : list of int
        Of its category, see :func:`keypoint_order`.

    Returns
    -------
    (17, 3) float32
        x, y in pixels, a pixel's centre being at +0.5, and visibility; all 0 where not labelled.

    Raises
    ------
    ValueError
        Another number of values than the category has, or one that is not a finite number.
    """
    points = np.zeros((len(NAMES), 3), np.float32)
    values = annotation.get("keypoints") or []
    if not values:
        return points
    numbers = isinstance(values, list) and all(
        isinstance(v, int | float) and abs(v) <= MAX_COORDINATE for v in values
    )
    if not numbers or len(values) != 3 * len(order):
        raise ValueError(
            f"its keypoints are not {3 * len(order)} finite numbers below {MAX_COORDINATE:g}, "
            f"x y visibility for each of the {len(order)} of its category"
        )
    given = np.array(values, np.float32).reshape(-1, 3)
    for place, (x, y, visibility) in zip(order, given, strict=True):
        if place >= 0 and visibility > 0:
            points[place] = x + 0.5, y + 0.5, visibility
    return points


def check_keypoints(records: Sequence[Record], model: ModelConfig, annotations: Path) -> None:
    """Refuse to train a keypoint head on data without keypoints.

    Raises
    ------
    ConfigError
        The model has a keypoint head, and no object of its class has a labelled keypoint.
    """
    head = model.keypoint_head
    if not head.blocks:
        return
    own = model.classes.index(head.class_id)
    if not any((r.keypoints[r.labels == own, :, 2] > 0).any() for r in records):
        raise ConfigError(
            f"no object of class {head.class_id} in {annotations} has a labelled keypoint: give "
            "annotations with COCO's keypoints, or set model.keypoint_head.blocks=0"
        )
