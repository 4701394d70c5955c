"""Object masks as small bitmaps: a COCO segmentation rasterised inside the object's own box."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from edgemask import rle

from .soft_mask import decode_soft_mask

MASK_SIZE = 64  # side of the bitmaps


def box_bitmap(segmentation: Any, box: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """Rasterise one object inside its own box.

    Parameters
    ----------
    segmentation : list of polygons, RLE dict, or soft mask dict
        As in COCO, or as in :mod:`.soft_mask`. An empty list gives None.
    box : (4,) x0 y0 x1 y1
    height, width : int
        Size of the image, which an RLE must have.

    Returns
    -------
    (64, 64) uint8 or None
        Area coverage 0..255 of each cell (of a soft mask: the probability), None where there
        is no usable mask.

    Raises
    ------
    ValueError
        A soft mask that is damaged, a polygon that is not a flat list of x y pairs, or an
        RLE that is damaged or of another size than the image.
    """
    if not segmentation:
        return None
    x0, y0, x1, y1 = (float(v) for v in box)
    if x1 <= x0 or y1 <= y0:
        return None
    if isinstance(segmentation, dict) and "data" in segmentation:
        soft = Image.fromarray(decode_soft_mask(segmentation))
        return np.asarray(soft.resize((MASK_SIZE, MASK_SIZE), Image.Resampling.BILINEAR))
    if isinstance(segmentation, dict):
        pixels = _decode_rle(segmentation, height, width).astype(np.uint8) * np.uint8(255)
        bitmap = np.asarray(
            Image.fromarray(pixels).resize(
                (MASK_SIZE, MASK_SIZE), Image.Resampling.BOX, box=(x0, y0, x1, y1)
            )
        )
        return bitmap if bitmap.any() else None
    # Draw at four times the resolution and average: anti-aliasing without extra libraries.
    fine = MASK_SIZE * 4
    canvas = Image.new("L", (fine, fine))
    draw = ImageDraw.Draw(canvas)
    scale = np.array([fine / (x1 - x0), fine / (y1 - y0)])
    usable = False
    for polygon in segmentation:
        points = np.asarray(polygon, np.float64)
        if points.ndim != 1 or points.size % 2 or not np.isfinite(points).all():
            raise ValueError("a polygon of it is not a list x0 y0 x1 y1 … of numbers")
        points = points.reshape(-1, 2)
        if len(points) < 3:
            continue
        # No half pixel is taken off: ImageDraw fills what lies between edge positions, and with
        # -0.5 every mask came out an eighth of a cell too far up and to the left.
        points = (points - (x0, y0)) * scale
        draw.polygon([tuple(p) for p in points], fill=255)
        usable = True
    if not usable:
        return None
    bitmap = np.asarray(canvas.reduce(4))
    return bitmap if bitmap.any() else None


def _decode_rle(segmentation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """COCO's RLE, compressed or a plain list of run lengths, as bool (H, W)."""
    size, counts = segmentation["size"], segmentation["counts"]
    if list(size) != [height, width]:
        raise ValueError(f"its RLE has size {size}, the image {[height, width]} (H, W)")
    if isinstance(counts, str | bytes):
        return rle.decode(counts, height, width)
    runs = np.asarray(counts)
    if runs.ndim != 1 or runs.dtype.kind != "i" or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"its RLE does not cover the {width}x{height} pixels of the image")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T
