"""Instance masks, kept as crops: pasting, measuring and converting them.

A mask covers a small part of the image as a rule, so it is kept as a small array and the place
where it lies. Dense (N, H, W) masks exist only when somebody asks for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgemask import contours as _contours
from edgemask import rle
from edgemask.boxes import Floats, as_boxes
from edgemask.errors import InputError

__all__ = ["CropMasks", "paste"]

Bools = NDArray[np.bool_]


class CropMasks:
    """The masks of N instances in one image.

    Parameters
    ----------
    crops : sequence of ndarray of bool, shapes (h, w)
        One per instance; h or w may be 0.
    origins : array_like of int, shape (N, 2)
        x0, y0 of each crop's top left pixel in the image. Crops lie within the image.
    height, width : int
        Size of the image in pixels.
    class_ids : array_like of int, shape (N,), optional
        Needed by :meth:`semantic` only.

    Raises
    ------
    InputError
        If a crop is not a two-dimensional bool array or leaves the image, or counts differ.
    """

    def __init__(
        self,
        crops: Sequence[Bools],
        origins: ArrayLike,
        height: int,
        width: int,
        class_ids: ArrayLike | None = None,
    ) -> None:
        self._crops = list(crops)
        self._origins = np.asarray(origins, dtype=np.int32).reshape(-1, 2)
        self._size = (int(height), int(width))
        self._class_ids = None if class_ids is None else np.asarray(class_ids, dtype=np.int32)
        if len(self._origins) != len(self._crops):
            counts = f"{len(self._origins)} origins for {len(self._crops)} crops"
            raise InputError(f"{counts}; give one per crop")
        if self._class_ids is not None and self._class_ids.shape != (len(self._crops),):
            shape = self._class_ids.shape
            raise InputError(f"class_ids of shape {shape} for {len(self._crops)} masks; give (N,)")
        for crop, (x0, y0) in zip(self._crops, self._origins.tolist(), strict=True):
            rle.check_crop(crop, x0, y0, *self._size)

    @classmethod
    def empty(cls, height: int, width: int) -> CropMasks:
        """Return the masks of an image without instances."""
        return cls([], [], height, width, [])

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, index: Any) -> CropMasks:
        """Return some of the masks, as CropMasks also for a single int; crops are shared."""
        chosen = np.atleast_1d(np.arange(len(self))[index])
        crops = [self._crops[n] for n in chosen.tolist()]
        classes = None if self._class_ids is None else self._class_ids[chosen]
        return CropMasks(crops, self._origins[chosen], *self._size, classes)

    def __repr__(self) -> str:
        return f"CropMasks({len(self)} masks in {self._size[0]}x{self._size[1]})"

    def with_class_ids(self, class_ids: ArrayLike) -> CropMasks:
        """Return the same masks, crops shared, that know their classes (int, shape (N,))."""
        return CropMasks(self._crops, self._origins, *self._size, class_ids)

    @property
    def crops(self) -> list[Bools]:
        """The crops, bool (h, w) each."""
        return self._crops

    @property
    def origins(self) -> NDArray[np.int32]:
        """x0, y0 of each crop, shape (N, 2)."""
        return self._origins

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self._size

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """Pixels of each mask, shape (N,)."""
        return np.array([np.count_nonzero(crop) for crop in self._crops], np.int64)

    @cached_property
    def _profiles(self) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """Pixels of each column and of each row of each crop: all that measuring needs."""
        return [
            (crop.sum(axis=0, dtype=np.int32), crop.sum(axis=1, dtype=np.int32))
            for crop in self._crops
        ]

    @cached_property
    def centroids(self) -> Floats:
        """Centre of gravity x, y of each mask, float32 (N, 2).

        Pixel centres lie at +0.5, so the single pixel (0, 0) has its centroid at 0.5, 0.5. An
        empty mask has the middle of its crop.
        """
        out = np.empty((len(self), 2), np.float32)
        for n, profiles in enumerate(self._profiles):
            for axis, profile in enumerate(profiles):
                # Whole numbers until the division: exact for any mask.
                total, length = int(profile.sum()), len(profile)
                moment = int(profile @ np.arange(length, dtype=np.int64)) if total else 0
                out[n, axis] = moment / total + 0.5 if total else length / 2
        return out + self._origins.astype(np.float32)

    @cached_property
    def boxes(self) -> Floats:
        """Tight boxes x0 y0 x1 y1 around the pixels of each mask, float32 (N, 4).

        An empty mask has a box without extent at its centroid.
        """
        out = np.empty((len(self), 4), np.float32)
        for n, profiles in enumerate(self._profiles):
            for axis, profile in enumerate(profiles):
                used = np.flatnonzero(profile)
                start = int(self._origins[n, axis])
                if len(used):
                    out[n, axis::2] = start + int(used[0]), start + int(used[-1]) + 1
                else:
                    out[n, axis::2] = start + len(profile) / 2
        return out

    def contours(self) -> list[list[Floats]]:
        """Return the outlines of each mask: per mask a list of polygons x, y, shape (K, 2).

        See :func:`edgemask.contours.contours` for their direction and how holes are marked.
        """
        return [
            _contours.contours(crop, x0, y0)
            for crop, (x0, y0) in zip(self._crops, self._origins.tolist(), strict=True)
        ]

    def to_coco_rle(self) -> list[dict[str, Any]]:
        """Return ``{"size": [H, W], "counts": bytes}`` per mask, as pycocotools has it."""
        height, width = self._size
        return [
            {"size": [height, width], "counts": rle.encode_crop(crop, x0, y0, height, width)}
            for crop, (x0, y0) in zip(self._crops, self._origins.tolist(), strict=True)
        ]

    def to_dense(self) -> Bools:
        """Return the masks at the size of the image, bool (N, H, W)."""
        dense = np.zeros((len(self), *self._size), np.bool_)
        for n in range(len(self)):
            self._draw(n, dense[n])
        return dense

    def semantic(self, class_id: int) -> Bools:
        """Return which pixels belong to any instance of a class.

        Parameters
        ----------
        class_id : int
            As in `class_ids`.

        Returns
        -------
        ndarray of bool, shape (H, W)
            All False if no instance has this class.

        Raises
        ------
        InputError
            If the masks do not know their classes.
        """
        if self._class_ids is None:
            raise InputError("these masks have no class ids; use with_class_ids() first")
        union = np.zeros(self._size, np.bool_)
        for n in np.flatnonzero(self._class_ids == class_id).tolist():
            self._draw(n, union)
        return union

    def _draw(self, n: int, image: Bools) -> None:
        crop, (x0, y0) = self._crops[n], self._origins[n].tolist()
        image[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]] |= crop


def paste(
    probabilities: ArrayLike, boxes: ArrayLike, height: int, width: int, threshold: float = 0.5
) -> CropMasks:
    """Resample the masks of the mask head to the pixels of the image.

    Equal to detectron2's ``paste_masks_in_image``: the S x S cells divide the box evenly, a
    pixel takes the bilinear value at its centre, outside of the cells is 0, and a pixel
    belongs to the mask if its value is not below the threshold.

    Parameters
    ----------
    probabilities : array_like of float, shape (N, S, S)
        In [0, 1].
    boxes : array_like, shape (N, 4)
        x0 y0 x1 y1 in pixels of the image; parts outside of the image are cut off.
    height, width : int
        Size of the image in pixels.
    threshold : float
        In (0, 1].

    Returns
    -------
    CropMasks
        A box without extent, with NaN, or outside of the image gives an empty crop.

    Raises
    ------
    InputError
        If shapes do not fit together or the threshold is out of range.
    """
    cells, frames = np.asarray(probabilities, dtype=np.float32), as_boxes(boxes)
    if cells.ndim != 3 or cells.shape[1] != cells.shape[2] or len(cells) != len(frames):
        found = f"masks of shape {cells.shape} for {len(frames)} boxes"
        raise InputError(f"{found}; give (N, S, S) and (N, 4)")
    if not 0 < threshold <= 1:
        raise InputError(f"the mask threshold is {threshold}; give a number above 0, at most 1")
    size, level = cells.shape[1], np.float32(threshold)
    spans = [
        _span(y0, y1, height, size, threshold) + _span(x0, x1, width, size, threshold)
        for x0, y0, x1, y1 in frames.tolist()
    ]
    # Per box: first row, rows, first column, columns; both counts 0 if either is.
    pixels = np.array(spans, np.int64).reshape(-1, 2, 2)
    pixels *= pixels[:, :, 1:].all(axis=1, keepdims=True)
    points = _sample_points(frames, pixels, size)
    # Bilinear weights of each cell (rows) for each pixel: hats around the sampling points.
    hats = np.arange(size, dtype=np.float32)[:, None] - points
    np.abs(hats, out=hats)
    np.subtract(np.float32(1), hats, out=hats)
    # Against an array: with a number, maximum() takes three times as long.
    np.maximum(hats, np.zeros(len(points), np.float32), out=hats)
    crops, offset = [], 0
    for n, (rows, columns) in enumerate(pixels[:, :, 1].tolist()):
        middle, end = offset + rows, offset + rows + columns
        crops.append(hats[:, offset:middle].T @ (cells[n] @ hats[:, middle:end]) >= level)
        offset = end
    return CropMasks(crops, pixels[:, ::-1, 0], height, width)


def _span(low: float, high: float, length: int, size: int, threshold: float) -> tuple[int, int]:
    """Return the first pixel along one axis that can reach the threshold, and how many can.

    Beyond the box the value falls off within half a cell, from one half downward.
    """
    if not (low < high and math.isfinite(high - low)):
        return 0, 0
    margin = max(0.0, 0.5 - threshold) * (high - low) / size
    first, stop = max(math.floor(low - margin), 0), min(math.ceil(high + margin), length)
    return (first, stop - first) if first < stop else (0, 0)


def _sample_points(boxes: Floats, pixels: NDArray[np.int64], size: int) -> Floats:
    """Return where the pixels of each box sample its cells, the first cell's centre being 0.

    `pixels` is int64 (N, 2, 2): per box and axis, y first, the first pixel and their number. The
    result is flat: rows of the first box, its columns, rows of the second box, and so on.
    """
    runs = pixels[:, :, 1].reshape(-1)
    shift = pixels[:, :, 0].reshape(-1) - (np.cumsum(runs) - runs)
    low = boxes[:, 1::-1]
    with np.errstate(invalid="ignore", over="ignore"):
        extent = boxes[:, :1:-1] - low
    points: Floats = (np.arange(runs.sum()) + np.repeat(shift, runs)).astype(np.float32)
    # The arithmetic of detectron2's grid and of grid_sample, step by step: values close to the
    # threshold then fall on the same side.
    points += np.float32(0.5)
    points -= np.repeat(low.reshape(-1), runs)
    points /= np.repeat(extent.reshape(-1), runs)
    points *= np.float32(2)
    points -= np.float32(1)  # detectron2's grid, in [-1, 1]
    points += np.float32(1)
    points *= np.float32(size)
    points -= np.float32(1)
    points *= np.float32(0.5)
    return points
