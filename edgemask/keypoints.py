"""COCO's 17 keypoints: their names, the lines between them, and reading them off heatmaps.

A keypoint head gives one heatmap per keypoint inside a box, as raw logits (Mask R-CNN, He et al.
2017). A softmax over all its cells says where the keypoint is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAMES", "SIGMAS", "SKELETON", "decode_heatmaps", "enlarge", "mirrored", "sigmas_of"]

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

SIGMAS: tuple[float, ...] = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062,
    0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
"""COCO's tolerance of each of `NAMES`: the standard deviation of what annotators did, as a share of
the square root of the person's area. OKS takes its double."""

_OTHER_SIGMA = 0.06  # of keypoints that COCO has not got: about the mean of its own
_COVERED = np.float32(0.5)  # share of its box that a person's mask covers, on average
_NARROWEST = np.float32(0.6)  # cells; a narrower Gaussian would fall between them
_TINY = np.float32(1e-15)  # in place of zero, where that would be divided by or its logarithm taken


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


def sigmas_of(names: Sequence[str]) -> tuple[float, ...]:
    """Return the tolerance of each name, see `SIGMAS`; 0.06 for what is none of COCO's."""
    known = dict(zip(NAMES, SIGMAS, strict=True))
    return tuple(known.get(name, _OTHER_SIGMA) for name in names)


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


def decode_heatmaps(
    logits: NDArray[Any], scale: float, boxes: Floats, sigmas: Sequence[float] = SIGMAS
) -> Floats:
    """Return for each heatmap the place of which the best OKS is to be expected, and that OKS.

    The highest cell is only the likeliest; if the softmax is broad, a place in the middle of many
    likely cells is nearer to the truth on average. So the softmax is smoothed by the Gaussian with
    which object keypoint similarity judges distances, and the peak of that is taken.

    Parameters
    ----------
    logits : ndarray of int8 or float32, shape (N, S, S, K), raw
    scale : float
        Step of int8 logits; the zero point does not matter. 1 for float32.
    boxes : ndarray of float32, shape (N, 4)
        Where each heatmap lies, x0 y0 x1 y1 in pixels.
    sigmas : sequence of float, length K
        How far off each keypoint may be, as COCO measures it; see `SIGMAS`.

    Returns
    -------
    ndarray of float32, shape (N, K, 3)
        x, y in pixels, and as score the expected similarity, 0 to 1: near 1 for one narrow peak,
        near 0.5 for two of them, less for a flat map.

    Notes
    -----
    A person is taken to cover half of its box. Along each axis a parabola through the logarithms of
    the peak and its two neighbours gives the fraction of a cell, which is exact for a Gaussian. A
    peak on the border keeps its cell's centre along the axis on which it has one neighbour only.
    """
    count, size, _, points = logits.shape
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], _TINY)  # a box may have no extent
    root = np.sqrt(_COVERED * sides.prod(axis=1))  # of the person's area
    spread = root[:, None] * (2 * np.array(sigmas, np.float32))
    kernels = [_gaussian(spread / sides[:, axis, None] * np.float32(size), size) for axis in (0, 1)]
    expected = kernels[1] @ _softmax(logits, scale) @ kernels[0]  # each kernel is symmetric

    cells = expected.reshape(count, points, size * size)
    peak = cells.argmax(axis=2)[..., None]
    found = np.empty((count, points, 3), np.float32)
    found[..., 2:] = np.take_along_axis(cells, peak, axis=2)
    for axis, step in ((0, 1), (1, size)):
        place = peak % size if axis == 0 else peak // size
        inner = (place > 0) & (place < size - 1)
        near = np.where(inner, peak + np.array([-step, 0, step]), peak)
        before, middle, after = np.moveaxis(
            np.log(np.maximum(np.take_along_axis(cells, near, axis=2), _TINY)), 2, 0
        )
        bend = 2 * middle - before - after
        shift = np.divide(after - before, 2 * bend, out=np.zeros_like(bend), where=bend > 0)
        share = (place[..., 0] + np.float32(0.5) + shift) / np.float32(size)
        found[..., axis] = boxes[:, axis, None] + share * sides[:, axis, None]
    return found


def _softmax(logits: NDArray[Any], scale: float) -> Floats:
    """Heatmaps (N, K, S, S) that sum to 1, from raw logits (N, S, S, K)."""
    maps = np.moveaxis(logits, 3, 1)
    highest = maps.max(axis=(2, 3), keepdims=True)
    if logits.dtype == np.int8:
        # How far below the peak: 0 to 255, in bytes that wrap around. A table has the exponentials.
        table = np.exp(np.float32(-scale) * np.arange(256, dtype=np.float32))
        shares: Floats = table[highest.view(np.uint8) - maps.view(np.uint8)]
    else:
        shares = np.exp((maps - highest) * np.float32(scale))
    shares /= shares.sum(axis=(2, 3), keepdims=True)
    return shares


def _gaussian(widths: Floats, size: int) -> Floats:
    """Similarity of each two cells along one axis, (N, K, S, S), for widths (N, K) in cells."""
    cells = np.arange(size, dtype=np.float32)
    squares = np.square(cells[:, None] - cells)
    factor = np.float32(-0.5) / np.square(np.maximum(widths, _NARROWEST))
    kernel: Floats = np.exp(factor[..., None, None] * squares)
    return kernel
