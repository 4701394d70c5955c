"""Axis-aligned boxes: area, overlap, clipping and the Faster R-CNN box coding.

A box is four float32 numbers ``x0 y0 x1 y1`` in pixels, half-open: it covers the points with
``x0 <= x < x1`` and ``y0 <= y < y1``, so its width is ``x1 - x0`` without any ``+ 1``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgemask.errors import InputError

__all__ = ["MAX_LOG_SCALE", "area", "as_boxes", "clip", "decode", "encode", "iou_matrix", "scale"]

Floats = NDArray[np.float32]

#: Largest ``dw / ww`` and ``dh / wh`` that :func:`decode` honours. A box can grow 62.5 times at
#: most, so that a wild regression output cannot overflow ``exp``.
MAX_LOG_SCALE = math.log(1000.0 / 16.0)


def as_boxes(boxes: ArrayLike, name: str = "boxes") -> Floats:
    """Return `boxes` as a float32 array of shape (N, 4).

    Parameters
    ----------
    boxes : array_like, shape (N, 4)
        Nothing is copied if it is a float32 array already. An empty list counts as N = 0.
    name : str
        What to call it in the error message.

    Raises
    ------
    InputError
        If the shape is not (N, 4).
    """
    array = np.asarray(boxes, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        if array.size == 0:
            return np.zeros((0, 4), np.float32)
        raise InputError(f"{name} has shape {array.shape}; give (N, 4) with x0 y0 x1 y1 per row")
    return array


def area(boxes: ArrayLike) -> Floats:
    """Return the area of each box.

    Parameters
    ----------
    boxes : array_like, shape (N, 4)
        x0 y0 x1 y1 in pixels.

    Returns
    -------
    ndarray of float32, shape (N,)
        Square pixels. The product of the signed sides, as in torchvision: a box that is
        inverted along one axis has a negative area.
    """
    array = as_boxes(boxes)
    sides: Floats = array[:, 2:] - array[:, :2]
    return np.multiply(sides[:, 0], sides[:, 1])


def iou_matrix(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the intersection over union of every box of `a` with every box of `b`.

    Parameters
    ----------
    a : array_like, shape (N, 4)
    b : array_like, shape (M, 4)
        x0 y0 x1 y1 in pixels.

    Returns
    -------
    ndarray of float32, shape (N, M)
        In [0, 1]; two boxes whose union is empty have 0, never NaN.
    """
    first, second = as_boxes(a, "a"), as_boxes(b, "b")
    overlap, union = overlap_and_union(first.T, area(first), second.T, area(second))
    return np.divide(overlap, union, out=overlap, where=union > 0)


def overlap_and_union(
    a: Floats, a_area: Floats, b: Floats, b_area: Floats
) -> tuple[Floats, Floats]:
    """Return the intersection and union areas of every pair, for boxes stored by column.

    Parameters
    ----------
    a, b : ndarray of float32, shapes (4, N) and (4, M)
        Rows x0, y0, x1, y1: contiguous rows make the broadcasts below stream through memory.
    a_area, b_area : ndarray of float32, shapes (N,) and (M,)

    Returns
    -------
    overlap, union : ndarray of float32, shape (N, M)
        Freshly allocated: the caller may overwrite them. The operations and their order are
        those of torchvision's NMS, so the quotient is equal to its IoU to the last bit.
    """
    left = a[:, :, None]
    overlap = np.minimum(left[2], b[2])
    work = np.maximum(left[0], b[0])
    overlap -= work
    # Against an array: with a number, maximum() takes three times as long.
    nothing = np.zeros(len(b_area), np.float32)
    np.maximum(overlap, nothing, out=overlap)
    height = np.minimum(left[3], b[3])
    height -= np.maximum(left[1], b[1], out=work)
    np.maximum(height, nothing, out=height)
    overlap *= height
    union = np.add(a_area[:, None], b_area, out=work)
    union -= overlap
    return overlap, union


def clip(boxes: ArrayLike, height: float, width: float) -> Floats:
    """Return the boxes limited to an image.

    Parameters
    ----------
    boxes : array_like, shape (N, 4)
        x0 y0 x1 y1 in pixels.
    height, width : float
        Size of the image in pixels.

    Returns
    -------
    ndarray of float32, shape (N, 4)
        x in [0, width] and y in [0, height]. A box outside the image becomes empty.
    """
    limits = np.array([width, height, width, height], np.float32)
    clipped = np.maximum(as_boxes(boxes), np.float32(0))
    return np.minimum(clipped, limits, out=clipped)


def scale(boxes: ArrayLike, sx: float, sy: float) -> Floats:
    """Return the boxes with x multiplied by `sx` and y by `sy`.

    With half-open boxes and pixel centres at +0.5, this is all that is needed to carry boxes
    from an image to its resized copy: there is no offset.

    Parameters
    ----------
    boxes : array_like, shape (N, 4)
        x0 y0 x1 y1 in pixels.
    sx, sy : float
        New width over old width and new height over old height.

    Returns
    -------
    ndarray of float32, shape (N, 4)
    """
    return as_boxes(boxes) * np.array([sx, sy, sx, sy], np.float32)


def encode(boxes: ArrayLike, anchors: ArrayLike, weights: Sequence[float]) -> Floats:
    """Return the regression targets that turn `anchors` into `boxes`; :func:`decode` inverts it.

    The coding of Faster R-CNN (Ren et al. 2015): ``dx = wx * (cx - ax) / aw`` and
    ``dw = ww * log(w / aw)``, and the same for y and height.

    Parameters
    ----------
    boxes, anchors : array_like, shape (N, 4)
        x0 y0 x1 y1 in pixels, with positive sides.
    weights : sequence of 4 float
        wx, wy, ww, wh.

    Returns
    -------
    ndarray of float32, shape (N, 4)
        dx, dy, dw, dh.

    Raises
    ------
    InputError
        If a box or an anchor has a side that is not positive, or the shapes differ.
    """
    target, anchor = as_boxes(boxes), as_boxes(anchors, "anchors")
    factors = _weights(weights)
    if target.shape != anchor.shape:
        raise InputError(f"{len(target)} boxes for {len(anchor)} anchors; give one box per anchor")
    anchor_size = anchor[:, 2:] - anchor[:, :2]
    target_size = target[:, 2:] - target[:, :2]
    if not ((anchor_size > 0).all() and (target_size > 0).all()):
        raise InputError("a box or anchor has no width or height; drop such boxes before encode()")
    deltas = np.empty_like(target)
    half = np.float32(0.5)
    deltas[:, :2] = (target[:, :2] + half * target_size) - (anchor[:, :2] + half * anchor_size)
    deltas[:, :2] /= anchor_size
    deltas[:, 2:] = np.log(target_size / anchor_size)
    deltas *= factors
    return deltas


def decode(deltas: ArrayLike, anchors: ArrayLike, weights: Sequence[float]) -> Floats:
    """Return the boxes that regression outputs describe; the inverse of :func:`encode`.

    Parameters
    ----------
    deltas : array_like, shape (N, 4)
        dx, dy, dw, dh as the network gives them.
    anchors : array_like, shape (N, 4)
        x0 y0 x1 y1 in pixels: the anchors, or the proposals for the box head.
    weights : sequence of 4 float
        wx, wy, ww, wh of the coding.

    Returns
    -------
    ndarray of float32, shape (N, 4)
        Not clipped to the image. ``dw / ww`` and ``dh / wh`` are limited to
        ``log(1000 / 16)`` from above, as in detectron2. Each coordinate is contiguous.

    Raises
    ------
    InputError
        If the shapes differ or a weight is not positive.
    """
    values, anchor = as_boxes(deltas, "deltas"), as_boxes(anchors, "anchors")
    if values.shape != anchor.shape:
        raise InputError(f"{len(values)} deltas for {len(anchor)} anchors; give one per anchor")
    # By column: NumPy is slow at rows of two and four numbers.
    columns = values.T.copy(order="C")
    columns /= _weights(weights)[:, None]
    corners = np.ascontiguousarray(anchor.T)
    shift, size = columns[:2], columns[2:]
    anchor_size = corners[2:] - corners[:2]
    np.minimum(size, np.float32(MAX_LOG_SCALE), out=size)
    # In double precision, then rounded: the same float32 on every machine. The float32 exp of NumPy
    # differs in its last bit between processors, and with it the boxes and all that is pooled.
    size[...] = np.exp(size, dtype=np.float64)
    size *= anchor_size
    shift *= anchor_size
    shift += corners[:2]
    anchor_size *= np.float32(0.5)
    shift += anchor_size
    # `shift` now holds the centres; the corners are half a side away.
    size *= np.float32(0.5)
    np.subtract(shift, size, out=anchor_size)
    size += shift
    shift[...] = anchor_size
    return columns.T


def _weights(weights: Sequence[float]) -> Floats:
    return _checked_weights(tuple(weights))


@functools.lru_cache(maxsize=16)
def _checked_weights(weights: tuple[float, ...]) -> Floats:
    array = np.asarray(weights, dtype=np.float32)
    if array.shape != (4,) or not (array > 0).all():
        raise InputError(
            f"box weights are {list(weights)!r}; give four positive numbers wx wy ww wh"
        )
    array.flags.writeable = False
    return array
