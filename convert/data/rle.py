"""Segmentations of any kind as run lengths."""

from __future__ import annotations

from typing import Any

__all__ = ["to_rle"]


def to_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """COCO polygons or RLE of any kind as pycocotools' compressed RLE."""
    from pycocotools import mask as coco_mask

    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation
