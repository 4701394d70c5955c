"""The anchor boxes of a feature pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.errors import InputError

__all__ = ["anchors_of", "given_anchors", "pyramid_anchors"]


def pyramid_anchors(
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    sizes: Sequence[float],
    ratios: Sequence[float],
) -> NDArray[np.float32]:
    """Return the anchors of all cells of all levels.

    The anchors of Feature Pyramid Networks (Lin et al. 2017): one size per level, several
    aspect ratios of equal area. The anchor of cell (i, j) is centred on the middle of the cell,
    ``((j + 0.5) * stride, (i + 0.5) * stride)``.

    Parameters
    ----------
    shapes : sequence of (int, int)
        Height and width of each level, in cells.
    strides : sequence of int
        Pixels per cell of each level.
    sizes : sequence of float
        Side length of the square anchor of each level, in pixels.
    ratios : sequence of float
        Height over width. Width is ``size / sqrt(ratio)``, height ``size * sqrt(ratio)``.

    Returns
    -------
    ndarray of float32, shape (sum(H * W) * len(ratios), 4)
        x0 y0 x1 y1 in pixels of the network's input, ordered by level, row, column, ratio.
        Read-only and shared between calls: the result for a set of arguments is computed once.

    Raises
    ------
    InputError
        If the sequences differ in length or hold a number that is not positive.
    """
    return _anchors(
        tuple((int(height), int(width)) for height, width in shapes),
        tuple(map(float, strides)),
        tuple(map(float, sizes)),
        tuple(map(float, ratios)),
    )


def given_anchors(
    shape: tuple[int, int], stride: int, boxes: Sequence[Sequence[float]]
) -> NDArray[np.float32]:
    """Return the same boxes around the centre of every cell of one level.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the level, in cells.
    stride : int
        Pixels per cell.
    boxes : sequence of (x0, y0, x1, y1)
        Pixels from the middle of the cell; a box need not be centred on it.

    Returns
    -------
    ndarray of float32, shape (H * W * len(boxes), 4)
        x0 y0 x1 y1 in pixels of the network's input, ordered by row, column, box. Read-only and
        shared between calls.
    """
    height, width = shape
    flat = tuple(tuple(map(float, box)) for box in boxes)
    return _given(int(height), int(width), float(stride), flat)


def anchors_of(rpn: Mapping[str, Any], shapes: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """Return the anchors that a pack's ``rpn`` section describes, for levels of these shapes.

    Either ``anchor_boxes``, see :func:`given_anchors`, or ``anchor_sizes`` and
    ``anchor_ratios``, see :func:`pyramid_anchors`.
    """
    if "anchor_boxes" in rpn:
        return given_anchors(shapes[0], rpn["strides"][0], rpn["anchor_boxes"])
    return pyramid_anchors(shapes, rpn["strides"], rpn["anchor_sizes"], rpn["anchor_ratios"])


@lru_cache(maxsize=8)
def _given(
    height: int, width: int, stride: float, boxes: tuple[tuple[float, ...], ...]
) -> NDArray[np.float32]:
    rows, columns = (np.arange(n, dtype=np.float32) + np.float32(0.5) for n in (height, width))
    centres = np.empty((height, width, 1, 4), np.float32)
    centres[..., 0::2] = columns[:, None, None] * np.float32(stride)
    centres[..., 1::2] = rows[:, None, None, None] * np.float32(stride)
    anchors: NDArray[np.float32] = (centres + np.asarray(boxes, np.float32)).reshape(-1, 4)
    anchors.flags.writeable = False
    return anchors


@lru_cache(maxsize=8)
def _anchors(
    shapes: tuple[tuple[int, int], ...],
    strides: tuple[float, ...],
    sizes: tuple[float, ...],
    ratios: tuple[float, ...],
) -> NDArray[np.float32]:
    if not len(shapes) == len(strides) == len(sizes):
        raise InputError(
            f"{len(shapes)} shapes, {len(strides)} strides and {len(sizes)} anchor sizes; "
            "give one of each per level"
        )
    if not ratios or min(ratios) <= 0:
        raise InputError(f"anchor ratios are {ratios}; give one or more positive numbers")
    if min((*strides, *sizes), default=1) <= 0 or min(map(min, shapes), default=0) < 0:
        raise InputError("a stride or anchor size is not positive, or a level's shape is negative")
    roots = np.sqrt(np.asarray(ratios, np.float32))
    unit = np.stack([-1 / roots, -roots, 1 / roots, roots], axis=1) * np.float32(0.5)
    levels = []
    for (height, width), stride, size in zip(shapes, strides, sizes, strict=True):
        centres = np.empty((height, width, 1, 4), np.float32)
        centres[..., 0::2] = ((np.arange(width, dtype=np.float32) + 0.5) * stride)[:, None, None]
        centres[..., 1::2] = ((np.arange(height, dtype=np.float32) + 0.5) * stride)[
            :, None, None, None
        ]
        levels.append((centres + unit * np.float32(size)).reshape(-1, 4))
    anchors = np.concatenate(levels) if levels else np.zeros((0, 4), np.float32)
    anchors.flags.writeable = False
    return anchors
