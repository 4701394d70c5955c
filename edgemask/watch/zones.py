"""Whether an instance is in a zone: by the foot point of its mask, or by its area."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgemask.boxes import Floats
from edgemask.errors import InputError
from edgemask.instances import Instances
from edgemask.masks import CropMasks
from edgemask.settings import ZoneSettings

__all__ = ["Zone", "foot_points", "points_in_polygon", "rasterize"]

_SOLE = 0.05  # the part of a mask's height that stands on the ground


class Zone:
    """A zone in an image of a certain size.

    Parameters
    ----------
    settings : ZoneSettings
    height, width : int
        Size of the image in pixels.

    Attributes
    ----------
    polygon : ndarray of float32, shape (V, 2)
        x, y in pixels.

    Raises
    ------
    InputError
        The zone has no pixel in the image.
    """

    def __init__(self, settings: ZoneSettings, height: int, width: int) -> None:
        self.settings = settings
        scale = (width, height) if settings.normalised else (1, 1)
        self.polygon: Floats = np.array(settings.polygon, np.float32) * np.array(scale, np.float32)
        self._pixels = rasterize(self.polygon, height, width)
        if not self._pixels.any():
            raise InputError(
                f"the zone {settings.name!r} covers no pixel of the {width}x{height} image: give "
                "its points as x, y in pixels of that image, or as fractions from 0 to 1"
            )

    def inside(self, instances: Instances) -> NDArray[np.bool_]:
        """Return which instances are in the zone, shape (N,).

        An instance of another class or below ``min_score`` is not, nor is one with an empty mask.
        """
        wanted = self.settings.classes
        result = instances.scores >= np.float32(self.settings.min_score)
        result &= instances.masks.areas > 0
        if wanted:
            result &= np.array([name in wanted for name in instances.class_names], np.bool_)
        chosen = np.flatnonzero(result)
        masks = instances.masks[chosen]
        if self.settings.inside == "foot":
            result[chosen] = points_in_polygon(foot_points(masks), self.polygon)
        else:
            result[chosen] = self._shares(masks) >= np.float32(self.settings.min_share)
        return result

    def _shares(self, masks: CropMasks) -> Floats:
        """Return the share of each mask that lies in the zone, for masks that are not empty."""
        covered = np.zeros(len(masks), np.float32)
        for n, crop in enumerate(masks.crops):
            x0, y0 = masks.origins[n].tolist()
            window = self._pixels[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]]
            covered[n] = np.count_nonzero(crop & window)
        return np.divide(covered, masks.areas.astype(np.float32), out=covered)


def foot_points(masks: CropMasks) -> Floats:
    """Return where the instances touch the ground: x, y in pixels, shape (N, 2).

    y is the centre of the lowest row with mask pixels, x the mean over the lowest twentieth of the
    mask. No mask may be empty.
    """
    points = np.empty((len(masks), 2), np.float32)
    for n, crop in enumerate(masks.crops):
        rows = np.flatnonzero(crop.any(axis=1))
        sole = crop[rows[-1] - int((rows[-1] - rows[0]) * _SOLE) : rows[-1] + 1]
        points[n] = np.nonzero(sole)[1].mean(dtype=np.float32) + 0.5, rows[-1] + 0.5
    return points + masks.origins.astype(np.float32)


def points_in_polygon(points: ArrayLike, polygon: ArrayLike) -> NDArray[np.bool_]:
    """Return which points lie in a polygon, by the even-odd rule.

    Parameters
    ----------
    points : array_like, shape (N, 2)
    polygon : array_like, shape (V, 2)
        x, y; the last point is joined to the first.

    Returns
    -------
    ndarray of bool, shape (N,)
    """
    x, y = np.asarray(points, dtype=np.float32).reshape(-1, 2).T
    inside = np.zeros(len(x), np.bool_)
    for (x0, y0), (x1, y1) in _edges(polygon):
        crosses = (y0 > y) != (y1 > y)
        # Where the edge does not cross the point's row, the quotient means nothing and is not used.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            at = (x1 - x0) * (y - y0) / np.float32(y1 - y0) + x0
        inside ^= crosses & (x < at)
    return inside


def rasterize(polygon: ArrayLike, height: int, width: int) -> NDArray[np.bool_]:
    """Return which pixels have their centre in a polygon, shape (H, W); the same even-odd rule."""
    x = np.arange(width, dtype=np.float32) + np.float32(0.5)
    inside = np.zeros((height, width), np.bool_)
    y = np.arange(height, dtype=np.float32) + np.float32(0.5)
    for (x0, y0), (x1, y1) in _edges(polygon):
        rows = np.flatnonzero((y0 > y) != (y1 > y))
        if len(rows):
            at = (x1 - x0) * (y[rows] - y0) / np.float32(y1 - y0) + x0
            inside[rows] ^= x < at[:, None]
    return inside


def _edges(polygon: ArrayLike) -> Sequence[tuple[Floats, Floats]]:
    corners = np.asarray(polygon, dtype=np.float32).reshape(-1, 2)
    return list(zip(corners, np.roll(corners, -1, axis=0), strict=True))
