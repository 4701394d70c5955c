"""Suppression by the overlap of masks, for what the suppression by boxes has left.

Two people who embrace share a box but hardly a pixel; one person who was found twice shares both.
So boxes are suppressed at a high overlap only, and the masks decide about the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemask.boxes import Floats, iou_matrix
from edgemask.masks import CropMasks

__all__ = ["mask_soft_nms"]


def mask_soft_nms(
    masks: CropMasks, boxes: Floats, scores: Floats, classes: NDArray[np.int64], threshold: float
) -> Floats:
    """Lower the score of whatever shares its pixels with something better of its class.

    Linear Soft-NMS (Bodla et al. 2017) on masks: beyond `threshold` the score falls linearly with
    the overlap, to 0 where a mask is the same as a better one.

    Parameters
    ----------
    masks : CropMasks, of length N
        By descending score.
    boxes : ndarray of float32, shape (N, 4)
        In pixels of the image. Masks whose boxes overlap less than `threshold` are not compared.
    scores : ndarray of float32, shape (N,)
        Descending.
    classes : ndarray of int, shape (N,)
    threshold : float
        Intersection over union, below 1.

    Returns
    -------
    ndarray of float32, shape (N,)
        No longer sorted.
    """
    near = np.triu(iou_matrix(boxes, boxes) > threshold, 1)
    near &= classes[:, None] == classes
    if not near.any():
        return scores
    overlap = np.zeros(len(scores), np.float32)
    areas, crops, origins = masks.areas.tolist(), masks.crops, masks.origins.tolist()
    for better, worse in np.argwhere(near).tolist():
        shared = _shared_pixels(crops[better], origins[better], crops[worse], origins[worse])
        union = areas[better] + areas[worse] - shared
        if shared:
            overlap[worse] = max(overlap[worse], np.float32(shared / union))
    # 1 up to the threshold, from there to 0.
    factors: Floats = np.minimum((1 - overlap) / np.float32(1 - threshold), np.float32(1))
    lowered: Floats = scores * factors
    return lowered


def _shared_pixels(
    a: NDArray[np.bool_], a_origin: list[int], b: NDArray[np.bool_], b_origin: list[int]
) -> int:
    """Count the pixels that are set in both of two crops, whose origins are x, y."""
    (ax, ay), (bx, by) = a_origin, b_origin
    x0, y0 = max(ax, bx), max(ay, by)
    x1 = min(ax + a.shape[1], bx + b.shape[1])
    y1 = min(ay + a.shape[0], by + b.shape[0])
    if x1 <= x0 or y1 <= y0:
        return 0
    first = a[y0 - ay : y1 - ay, x0 - ax : x1 - ax]
    return int(np.count_nonzero(first & b[y0 - by : y1 - by, x0 - bx : x1 - bx]))
