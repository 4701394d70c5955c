"""labelme's shapes as COCO outlines."""

from __future__ import annotations

import base64
import binascii
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from .dataset import DatasetError

__all__ = ["AREAS", "check_points", "shape_annotation"]

CIRCLE_POINTS = 64
AREAS = ("polygon", "rectangle", "oriented_rectangle", "circle", "mask")


def check_points(points: Any, kind: str, where: str) -> None:
    """Raise DatasetError unless a shape's points are what its kind needs."""
    try:
        array = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise DatasetError(f"{where} has points that are not pairs of numbers: draw it again")
    if kind != "polygon" and len(array) < 2:
        raise DatasetError(f"{where}, a {kind}, has {len(array)} points, not 2: draw it again")


def shape_annotation(
    shapes: list[dict[str, Any]], height: int, width: int, boxes: bool
) -> dict[str, Any] | None:
    """``bbox``, ``area`` and ``segmentation`` of an object, None if nothing of it is visible."""
    from pycocotools import mask as coco_mask

    polygons = [_polygon(s, height, width) for s in shapes if s["shape_type"] != "mask"]
    polygons = [p for p in polygons if len(p) >= 6]
    bitmaps = [_bitmap(s, height, width) for s in shapes if s["shape_type"] == "mask"]
    parts = coco_mask.frPyObjects(polygons, height, width) if polygons else []
    parts += [coco_mask.encode(np.asfortranarray(bitmap)) for bitmap in bitmaps]
    if not parts:
        return None
    whole = coco_mask.merge(parts)
    area = int(coco_mask.area(whole))
    if not area:
        return None
    if bitmaps:
        box = coco_mask.toBbox(whole).tolist()
        outline: Any = {"size": [height, width], "counts": whole["counts"].decode("ascii")}
    else:
        # Of the points and not of the pixels: half a pixel matters where objects are small.
        points = np.concatenate([np.reshape(p, (-1, 2)) for p in polygons])
        low, high = points.min(axis=0), points.max(axis=0)
        box, outline = [*low.tolist(), *(high - low).tolist()], polygons
        if boxes and any(shape["shape_type"].endswith("rectangle") for shape in shapes):
            outline = []
    return {"bbox": [round(v, 2) for v in box], "area": area, "segmentation": outline}


def _polygon(shape: dict[str, Any], height: int, width: int) -> list[float]:
    """x0 y0 x1 y1 … of a polygon, rectangle or circle, inside the image."""
    points = np.asarray(shape["points"], np.float64)
    if shape["shape_type"] == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    elif shape["shape_type"] == "circle":
        radius = math.dist(points[0], points[1])
        angles = np.arange(CIRCLE_POINTS) * (2 * np.pi / CIRCLE_POINTS)
        points = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.clip(points, 0, (width, height)).round(2).ravel().tolist()


def _bitmap(shape: dict[str, Any], height: int, width: int) -> np.ndarray:
    """labelme's mask, a PNG of the box from the first point to the second, as uint8 (H, W)."""
    try:
        png = base64.b64decode(shape["mask"], validate=True)
        with Image.open(io.BytesIO(png)) as image:
            crop = np.asarray(image.convert("L")) > 0
    except (KeyError, TypeError, binascii.Error, OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"{shape['where']}: its mask is damaged ({error}): draw it again") from (
            error
        )
    x0, y0 = (round(v) for v in np.min(shape["points"], axis=0))
    full = np.zeros((height, width), np.uint8)
    left, top = max(x0, 0), max(y0, 0)
    inside = crop[top - y0 : max(height - y0, 0), left - x0 : max(width - x0, 0)]
    full[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return full
