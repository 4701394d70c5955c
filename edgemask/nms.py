"""Greedy non-maximum suppression with the results of torchvision, index by index."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgemask.boxes import Floats, as_boxes, overlap_and_union
from edgemask.errors import InputError

__all__ = ["batched_nms", "nms", "nms_in_order"]

Indices = NDArray[np.int64]

#: Boxes handled at once, at most: enough that NumPy's cost per call does not count, and so few that
#: the overlap matrices stay in the cache of a Cortex-A53.
_BLOCK = 112

#: Up to here torchvision's batched_nms shifts the classes apart, beyond it loops over them.
_SHIFT_LIMIT = 1000


def nms(
    boxes: ArrayLike,
    scores: ArrayLike,
    iou_threshold: float,
    max_output: int | None = None,
) -> Indices:
    """Keep the best-scored of boxes that overlap.

    Greedy: going down by score, a box is kept unless its IoU with a box that was kept before is
    greater than the threshold.

    Parameters
    ----------
    boxes : array_like, shape (N, 4)
        x0 y0 x1 y1 in pixels.
    scores : array_like, shape (N,)
        Any finite scores; they are compared as float32.
    iou_threshold : float
        In [0, 1].
    max_output : int, optional
        Stop when so many boxes are kept.

    Returns
    -------
    ndarray of int64, shape (K,)
        Indices of the boxes that are kept, by descending score, ties by ascending index: what
        ``torchvision.ops.nms`` returns.

    Raises
    ------
    InputError
        If there is not one score per box.
    """
    coordinates, values = _check(boxes, scores)
    return _nms(coordinates, values, iou_threshold, max_output)


def nms_in_order(boxes: ArrayLike, iou_threshold: float, max_output: int | None = None) -> Indices:
    """Do what :func:`nms` does for boxes that are sorted by descending score already.

    Parameters
    ----------
    boxes : array_like, shape (N, 4)
        x0 y0 x1 y1 in pixels, the best first.
    iou_threshold : float
        In [0, 1].
    max_output : int, optional
        Stop when so many boxes are kept.

    Returns
    -------
    ndarray of int64, shape (K,)
        Indices of the boxes that are kept, ascending.
    """
    columns = np.ascontiguousarray(as_boxes(boxes).T)
    return _in_order(columns, iou_threshold, max_output)


def batched_nms(
    boxes: ArrayLike,
    scores: ArrayLike,
    class_ids: ArrayLike,
    iou_threshold: float,
    max_output: int | None = None,
) -> Indices:
    """Non-maximum suppression within each class: boxes of different classes do not compete.

    Parameters
    ----------
    boxes : array_like, shape (N, 4)
        x0 y0 x1 y1 in pixels.
    scores : array_like, shape (N,)
        Any finite scores; they are compared as float32.
    class_ids : array_like of int, shape (N,)
        0 or more; class, or pyramid level, of each box.
    iou_threshold : float
        In [0, 1].
    max_output : int, optional
        Return only so many boxes, the best-scored of all classes.

    Returns
    -------
    ndarray of int64, shape (K,)
        Indices of the boxes that are kept, by descending score, ties by ascending index: what
        ``torchvision.ops.batched_nms`` returns. (For more than 1000 boxes that sorts its result
        without regard to ties, so equal scores may come in another order there.)

    Raises
    ------
    InputError
        If there is not one score and one class per box.

    Notes
    -----
    Up to 1000 boxes torchvision moves every class to a place of its own and runs one NMS. The
    float32 rounding of the moved coordinates decides near-ties at the threshold, so the same
    is done here. Where boxes have negative coordinates the moved classes could touch (in
    torchvision they do); they are handled class by class then.
    """
    coordinates, values = _check(boxes, scores)
    classes = np.asarray(class_ids)
    if classes.shape != values.shape:
        raise InputError(f"{classes.size} class ids for {len(values)} boxes; give one per box")
    if not len(values):
        return np.zeros(0, np.int64)
    if not classes.any():
        return _nms(coordinates, values, iou_threshold, max_output)
    if len(values) <= _SHIFT_LIMIT:
        step = coordinates.max() + np.float32(1)
        apart = coordinates.min() >= 0
        coordinates = coordinates + (classes.astype(np.float32) * step)[:, None]
        # One pass compares all classes with each other. Only if much is to be kept of few classes
        # is a pass for each of them faster; the result is the same.
        limit = len(values) if max_output is None else min(max_output, len(values))
        if apart and (limit <= 256 or limit <= 64 * len(np.unique(classes))):
            return _nms(coordinates, values, iou_threshold, max_output)
    kept = []
    for class_id in np.unique(classes):
        members = np.flatnonzero(classes == class_id).astype(np.int64, copy=False)
        best = _nms(coordinates[members], values[members], iou_threshold, max_output)
        kept.append(members[best])
    indices = np.sort(np.concatenate(kept))
    return indices[np.argsort(-values[indices], kind="stable")][:max_output]


def _check(boxes: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    coordinates = as_boxes(boxes)
    values = np.asarray(scores, dtype=np.float32)
    if values.shape != coordinates.shape[:1]:
        raise InputError(
            f"scores of shape {values.shape} for {len(coordinates)} boxes; give one per box"
        )
    return coordinates, values


def _nms(boxes: Floats, scores: Floats, iou_threshold: float, max_output: int | None) -> Indices:
    order = np.argsort(-scores, kind="stable")
    kept = _in_order(boxes.T.take(order, axis=1), iou_threshold, max_output)
    return order[kept].astype(np.int64, copy=False)  # argsort gives int32 on 32-bit ARM


def _in_order(columns: Floats, iou_threshold: float, max_output: int | None) -> Indices:
    """Greedy NMS, a block of boxes (4, N) at a time.

    A block is first compared with the boxes that are kept already, and only the survivors with
    each other. That is kept x N overlaps in place of N x N, and none for the boxes after
    `max_output` is reached.
    """
    total = columns.shape[1]
    limit = total if max_output is None else min(max_output, total)
    sides = columns[2:] - columns[:2]
    # The boxes' areas are a fifth row.
    table = np.concatenate([columns, np.multiply(sides[:1], sides[1:])])
    threshold = _float32_at_most(iou_threshold)
    # Positions that are kept, and their boxes.
    kept: list[int] = []
    winners = np.empty((5, limit), np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        # As many in each block: 200 boxes are two of 100, not one of 112 and the rest.
        length = math.ceil(total / math.ceil(total / _BLOCK)) if total else 1
        for start in range(0, total, length):
            count = len(kept)
            if count >= limit:
                break
            block = table[:, start : start + length]
            positions: Sequence[int] = range(start, start + block.shape[1])
            if count:
                rivals = _exceeds(winners[:, :count], block, threshold)
                free = np.flatnonzero(~rivals.any(axis=0))
                block = block.take(free, axis=1)
                positions = (free + start).tolist()
            chosen = _greedy(_exceeds(block, block, threshold), limit - count)
            kept += [positions[n] for n in chosen]
            winners[:, count : len(kept)] = block.take(np.array(chosen, np.intp), axis=1)
    return np.array(kept, np.int64)


def _exceeds(a: Floats, b: Floats, threshold: np.float32) -> NDArray[np.bool_]:
    """Return which pairs of (5, N) and (5, M) have an IoU above the threshold.

    Never where the union is empty: that is NaN, which the caller silences.
    """
    overlap, union = overlap_and_union(a[:4], a[4], b[:4], b[4])
    np.divide(overlap, union, out=overlap)
    return overlap > threshold


def _greedy(rivals: NDArray[np.bool_], limit: int) -> list[int]:
    """Return which boxes of a block survive, given who suppresses whom (best box first).

    The sequential part of the algorithm. Each row is one Python integer with a bit per box, so
    that a step costs half of what operations on NumPy rows would; and only those that survive are
    visited, the next being the lowest bit of those that are left.
    """
    packed = np.packbits(rivals, axis=1, bitorder="little")
    step, data = packed.shape[1], packed.tobytes()
    left = (1 << len(rivals)) - 1
    chosen: list[int] = []
    while left and len(chosen) < limit:
        index = (left & -left).bit_length() - 1
        chosen.append(index)
        row = data[index * step : (index + 1) * step]
        # Its own bit is cleared apart: a box without extent is no rival of itself.
        left &= ~(int.from_bytes(row, "little") | 1 << index)
    return chosen


def _float32_at_most(value: float) -> np.float32:
    """Return the largest float32 that is not above `value`.

    torchvision compares the float32 IoU with the threshold in double precision. Comparing with
    this number in float32 gives the same answer for every IoU, also for one of exactly 0.3.
    """
    rounded = np.float32(value)
    if float(rounded) > value:
        rounded = np.nextafter(rounded, np.float32(-np.inf))
    return rounded
