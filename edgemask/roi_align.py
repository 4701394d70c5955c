"""RoIAlign (He et al., Mask R-CNN, 2017) on a feature pyramid, int8 or float32.

Equal to torchvision's ``roi_align(..., aligned=True)`` and detectron2's ROIAlignV2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgemask.boxes import Floats, as_boxes
from edgemask.errors import InputError

__all__ = ["assign_levels", "roi_align"]


def assign_levels(boxes: ArrayLike, thresholds: Sequence[float]) -> NDArray[np.int64]:
    """Return the pyramid level from which each box takes its features.

    Large boxes use coarse levels, as in Feature Pyramid Networks (Lin et al. 2017), with the
    borders given as numbers in place of a formula.

    Parameters
    ----------
    boxes : array_like, shape (N, 4)
        x0 y0 x1 y1 in pixels of the network's input.
    thresholds : sequence of float
        Ascending borders between the levels, in pixels of ``sqrt(width * height)``.

    Returns
    -------
    ndarray of int64, shape (N,)
        How many thresholds are not above ``sqrt(width * height)``: 0 is the finest level.
    """
    array = as_boxes(boxes)
    sides = np.maximum(array[:, 2:] - array[:, :2], np.float32(0))
    lengths = np.sqrt(sides[:, 0] * sides[:, 1])
    levels = np.searchsorted(np.asarray(thresholds, np.float32), lengths, side="right")
    return np.asarray(levels, dtype=np.int64)


def roi_align(
    levels: Sequence[NDArray[np.int8] | Floats],
    boxes: ArrayLike,
    level_ids: ArrayLike,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
    zero_point: int = 0,
    exact: bool = False,
) -> Floats:
    """Return the features of each box, resampled to a square grid.

    Each of the S x S bins of a box is the mean of ``sampling_ratio ** 2`` bilinear samples of
    the feature map; samples more than a cell outside of it count as 0.

    Parameters
    ----------
    levels : sequence of ndarray, int8 or float32, shape (H, W, C) or (1, H, W, C)
        The feature pyramid. Only the cells under a box are read.
    boxes : array_like, shape (N, 4)
        x0 y0 x1 y1 in pixels of the network's input.
    level_ids : array_like of int, shape (N,)
        Index into `levels` for each box, see :func:`assign_levels`.
    strides : sequence of int
        Pixels per cell of each level.
    output_size : int
        S, bins per side.
    sampling_ratio : int
        Samples per bin and axis, 1 or more.
    zero_point : int
        Subtracted from the features: with int8 levels the result is in quantization steps
        above zero, and the real value is that times the tensor's scale.
    exact : bool
        Round the positions of the samples so that the weights of the cells are multiples of
        1/256. With int8 levels and a `sampling_ratio` that is a power of two, every product and
        every sum then is a float32 without rounding, and the result is the same to the last bit
        on every machine, in whatever order its BLAS adds. The positions move by half a
        ``sampling_ratio / 256`` of a cell at most.

    Returns
    -------
    ndarray of float32, shape (N, S, S, C)

    Raises
    ------
    InputError
        If the numbers of boxes, levels, strides and channels do not fit together, or a
        coordinate is not finite.

    Notes
    -----
    The samples of a box form a grid, so the interpolation is separable: with A and B the
    (S, h) and (S, w) matrices of averaged bilinear weights, the result is A F B' for the
    (h, w) window F of cells under the box. The cost hardly depends on the sampling ratio.
    """
    rois = as_boxes(boxes)
    ids = np.asarray(level_ids)
    maps = [level[0] if level.ndim == 4 else level for level in levels]
    if len(maps) != len(strides) or ids.shape != rois.shape[:1]:
        raise InputError(
            f"{len(maps)} levels with {len(strides)} strides, {len(rois)} boxes with "
            f"{ids.size} level ids; give one stride per level and one level id per box"
        )
    if output_size < 1 or sampling_ratio < 1:
        raise InputError(
            f"output_size {output_size} and sampling_ratio {sampling_ratio}; give 1 or more"
        )
    channels = maps[0].shape[-1]
    if any(level.ndim != 3 or level.shape[-1] != channels for level in maps):
        raise InputError(
            f"levels of shapes {[level.shape for level in levels]}; give (H, W, C) with one C"
        )
    if not np.isfinite(rois).all():
        raise InputError("a box has a coordinate that is NaN or infinite; drop such boxes first")
    count, size = len(rois), output_size
    out = np.empty((count, size, size, channels), np.float32)
    if not count:
        return out
    ids = ids.astype(np.intp)
    cells = rois * np.reciprocal(np.asarray(strides, np.float32))[ids, None]
    lengths = np.array([level.shape[1::-1] for level in maps])[ids]
    # Both axes in one go: x of all boxes, then y of all boxes.
    low, high = cells[:, :2].T.reshape(-1), cells[:, 2:].T.reshape(-1)
    first, last, weights, inside = _weights(
        low, high, lengths.T.reshape(-1), size, sampling_ratio, exact
    )
    columns, rows = weights[:count], weights[count:]
    starts, stops = first.reshape(2, count).T.tolist(), last.reshape(2, count).T.tolist()
    # One window at a time: windows differ in size, and padding them to one batch costs more
    # than the calls. Converting whole levels first gains 5 % for 50 boxes and loses 2x for 5.
    flat = [level.reshape(len(level), -1) for level in maps]
    for n, (level_id, (x0, y0), (x1, y1)) in enumerate(
        zip(ids.tolist(), starts, stops, strict=True)
    ):
        window = flat[level_id][y0:y1, x0 * channels : x1 * channels].astype(np.float32)
        partial = rows[n, :, : y1 - y0] @ window
        width = x1 - x0
        np.matmul(columns[n, :, :width], partial.reshape(size, width, channels), out=out[n])
    if zero_point and inside:
        out -= np.float32(zero_point)
    elif zero_point:
        # The weights of a bin sum to less than 1 where samples fall outside of the map.
        sums = weights.sum(axis=2)
        out -= np.float32(zero_point) * (sums[count:, :, None, None] * sums[:count, None, :, None])
    return out


def _weights(
    low: Floats,
    high: Floats,
    lengths: NDArray[np.int64],
    size: int,
    ratio: int,
    exact: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, bool]:
    """Return the window of cells under each box along one axis, and their weights.

    Parameters
    ----------
    low, high : ndarray of float32, shape (N,)
        Ends of the boxes, in cells.
    lengths : ndarray of int, shape (N,)
        Cells of the feature map.
    size, ratio : int
        Bins, and samples per bin.
    exact : bool
        Whether weights are to be multiples of 1/256.

    Returns
    -------
    first, last : ndarray of int64, shape (N,)
        The window, half-open.
    weights : ndarray of float32, shape (N, size, max(last - first) + 1)
        Weight of each cell of the window in each bin.
    inside : bool
        Whether all samples lie on the map, so that the weights of each bin sum to 1.
    """
    # -0.5: the centre of cell 0 lies at 0.5, but its sample index is 0 ("aligned"). The order of
    # the operations is torchvision's: far from the origin float32 rounding is visible.
    bins = ((high - low) / np.float32(size))[:, None]
    starts = np.arange(size, dtype=np.float32) * bins
    starts += (low - np.float32(0.5))[:, None]
    samples = (np.arange(ratio, dtype=np.float32) + np.float32(0.5)) * bins
    samples /= np.float32(ratio)
    points = starts[:, :, None] + samples[:, None, :]
    if exact:
        # 7 bits of a feature, 8 of a row's weight and 8 of a column's: float32 holds 24.
        points *= np.float32(256 / ratio)
        np.rint(points, out=points)
        points *= np.float32(ratio / 256)
    # The samples of a box are in order: if the outer two are on the map, all are.
    outer = points.reshape(len(low), -1)[:, :: max(size * ratio - 1, 1)]
    ends = lengths[:, None].astype(np.float32)
    inside = bool((outer >= -1).all() and (outer <= ends).all())
    if not inside:
        on_map = (points >= -1) & (points <= ends[:, :, None])
    np.clip(points, np.float32(0), (ends - 1)[:, :, None], out=points)
    near, far = points[:, 0, 0], points[:, -1, -1]
    first = np.minimum(near, far).astype(np.int64)
    last = np.minimum(np.maximum(near, far).astype(np.int64) + 2, lengths)
    points -= first[:, None, None].astype(np.float32)
    corners = np.floor(points)
    points -= corners
    whole = corners.astype(np.intp)
    # Bilinear interpolation gives a sample's cell, and the next one, what is left of 1. One cell
    # more than a window can have: where a sample lies on the last one, the next gets nothing.
    cells = int((last - first).max()) + 1
    weights = np.zeros((len(low), size, cells), np.float32)
    flat = weights.reshape(-1)
    whole += np.arange(0, flat.size, cells).reshape(len(low), size, 1)
    nearer = np.float32(1) - points
    if not inside:
        nearer *= on_map
        points *= on_map
    for k in range(ratio):
        # Within one k no cell occurs twice.
        flat[whole[:, :, k]] += nearer[:, :, k]
        flat[whole[:, :, k] + 1] += points[:, :, k]
    if ratio > 1:
        weights *= np.float32(1 / ratio)
    return first, last, weights, inside
