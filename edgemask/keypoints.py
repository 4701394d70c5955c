"""COCO's 17 keypoints: their names, the lines between them, and reading them off heatmaps.

A keypoint head gives one heatmap per keypoint inside a box, as raw logits (Mask R-CNN, He et al.
2017). A softmax over all its cells says where the keypoint is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAMES", "SKELETON", "decode_heatmaps", "enlarge", "mirrored"]

Floats = NDArray[np.float32]

NAMES: tuple[str, ...] = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
"""The keypoints of COCO's category person, in COCO's order; left is the person's own left."""

SKELETON: tuple[tuple[int, int], ...] = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
    (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
"""COCO's lines between keypoints, as pairs of indices into `NAMES`."""

_REACH = 2  # cells around the peak whose share of the softmax is the score


def mirrored(names: Sequence[str]) -> list[int]:
    """Return where each keypoint is found in a mirror image: left and right change places.

    Parameters
    ----------
    names : sequence of str
        ``left_X`` and ``right_X`` are partners; anything else stays itself.

    Returns
    -------
    list of int
        Index of each name's partner.
    """
    index = {name: n for n, name in enumerate(names)}

    def partner(name: str) -> str:
        side, _, part = name.partition("_")
        other = {"left": "right", "right": "left"}.get(side)
        return f"{other}_{part}" if other else name

    return [index.get(partner(name), n) for n, name in enumerate(names)]


def enlarge(boxes: Floats, factor: float, height: float, width: float) -> Floats:
    """Scale boxes about their centres and clip them to the image.

    Parameters
    ----------
    boxes : ndarray of float32, shape (N, 4)
        x0 y0 x1 y1 in pixels, inside the image.
    factor : float
        Of both sides; 1 returns `boxes` itself.
    height, width : float
        Of the image.

    Returns
    -------
    ndarray of float32, shape (N, 4)
    """
    if factor == 1:
        return boxes
    grow = (boxes[:, 2:] - boxes[:, :2]) * np.float32((factor - 1) / 2)
    larger = boxes + np.concatenate([-grow, grow], axis=1)
    limits = np.array([width, height, width, height], np.float32)
    clipped: Floats = np.clip(larger, np.float32(0), limits)
    return clipped


def decode_heatmaps(logits: NDArray[Any], scale: float, boxes: Floats) -> Floats:
    """Return position and score of the highest peak of each heatmap.

    Parameters
    ----------
    logits : ndarray of int8 or float32, shape (N, S, S, K), raw
    scale : float
        Step of int8 logits; the zero point does not matter. 1 for float32.
    boxes : ndarray of float32, shape (N, 4)
        Where each heatmap lies, x0 y0 x1 y1 in pixels.

    Returns
    -------
    ndarray of float32, shape (N, K, 3)
        x, y in pixels, and as score the share of the softmax that lies within two cells of the
        peak: near 1 for one narrow peak, near 25 / S² for a flat map.

    Notes
    -----
    Along each axis a parabola through the peak and its two neighbours gives the fraction of a
    cell, which is exact if the softmax is a Gaussian. A peak on the border keeps its cell's
    centre along the axis on which it has one neighbour only.
    """
    count, size, _, points = logits.shape
    cells = logits.reshape(count, size * size, points)
    peak = cells.argmax(axis=1)
    highest = np.take_along_axis(cells, peak[:, None], axis=1)
    row, column = np.divmod(peak, size)
    steps = np.arange(-_REACH, _REACH + 1)
    rows = row[:, None] + np.repeat(steps, len(steps))[:, None]
    columns = column[:, None] + np.tile(steps, len(steps))[:, None]
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    near = np.where(inside, rows * size + columns, 0)
    if logits.dtype == np.int8:
        # How far below the peak: 0 to 255 in bytes that wrap around, so a table gives the softmax.
        below = highest.view(np.uint8) - cells.view(np.uint8)
        table = np.exp(np.float32(-scale) * np.arange(256, dtype=np.float32))
        total = table[below].sum(axis=1)
        drop = np.take_along_axis(below, near, axis=1).astype(np.float32) * np.float32(scale)
    else:
        drops = (highest - cells) * np.float32(scale)
        total = np.exp(-drops).sum(axis=1)
        drop = np.take_along_axis(drops, near, axis=1)
    score = (np.exp(-drop) * inside).sum(axis=1) / total

    middle, line = near.shape[1] // 2, len(steps)
    position = []
    for cell, step in ((column, 1), (row, line)):
        before, after = drop[:, middle - step], drop[:, middle + step]
        both = before + after
        curved = inside[:, middle - step] & inside[:, middle + step] & (both > 0)
        shift = np.zeros_like(both)
        np.divide(before - after, 2 * both, out=shift, where=curved)
        centre = cell.astype(np.float32) + np.float32(0.5)
        position.append((centre + shift) / np.float32(size))
    share = np.stack(position, axis=2)
    found = np.empty((count, points, 3), np.float32)
    found[..., :2] = boxes[:, None, :2] + share * (boxes[:, None, 2:] - boxes[:, None, :2])
    found[..., 2] = score
    return found
