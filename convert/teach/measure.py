"""How good a teacher is, on images whose masks are known: measure before believing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgemask import boxes as bx
from edgemask.coco_types import has_outline, usable_outline
from edgemask.evaluate import check_annotations, evaluate, require_pycocotools
from edgemask.images import load_image
from edgemask.instances import Instances
from edgemask.masks import paste
from edgemask.outputs import coco_results

from ..data.dataset import check_size
from .protocol import SoftInstances, Teacher
from .vocabulary import Vocabulary

__all__ = ["AREAS", "as_instances", "measure_teacher"]

AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}
"""COCO's size classes, by mask area in square pixels."""


def as_instances(
    found: SoftInstances, height: int, width: int, names: Mapping[int, str]
) -> Instances:
    """Paste soft masks into an image of this size (threshold 0.5)."""
    masks = paste(found.masks, found.boxes, height, width)
    labels = [names[int(c)] for c in found.class_ids]
    return Instances(found.boxes, found.scores, found.class_ids, masks, labels)


def measure_teacher(
    teacher: Teacher,
    truth: Mapping[str, Any],
    images: str | Path,
    category_ids: list[int] | None = None,
    progress: Callable[[], object] | None = None,
) -> dict[str, Any]:
    """Compare a teacher with annotated masks, unprompted and prompted with the true boxes.

    Objects without a mask are ignored: finding them is neither right nor wrong.

    Parameters
    ----------
    teacher : Teacher
    truth : dict
        COCO annotations as :func:`edgemask.evaluate.load_annotations` returns them.
    images : path of the folder
    category_ids : list of int, optional
        Of `truth`, to measure on; by default all that the teacher knows.
    progress : callable, optional
        Called after each image.

    Returns
    -------
    dict
        ``detection``: what :func:`edgemask.evaluate.evaluate` says of the unprompted labels.
        ``prompted``: the same for masks in the true boxes, all with score 1.
        ``mask_iou``: mean IoU of the prompted masks with the annotated ones for all, small,
        medium and large instances, and ``count``, how many there are of each. ``records``: per
        prompted instance its annotation id, area, IoU, and mask score (the mean probability
        inside the mask).

    Raises
    ------
    TeacherError
        The teacher knows none of the categories.
    """
    require_pycocotools()
    check_annotations(truth, ("bbox", "segm"))
    words = Vocabulary(teacher.categories, truth["categories"], category_ids)
    chosen = words.known
    by_image: dict[int, list[dict]] = {info["id"]: [] for info in truth["images"]}
    for annotation in truth["annotations"]:
        if annotation["category_id"] in chosen and not annotation.get("iscrowd"):
            by_image[annotation["image_id"]].append(annotation)
    names = {c["id"]: c["name"] for c in truth["categories"]}
    truth = _ignoring_maskless(truth)
    found_results, prompted_results, records = [], [], []
    for info in truth["images"]:
        path = Path(images) / info["file_name"]
        rgb = load_image(path)
        size = rgb.shape[:2]
        check_size(path, info, (size[1], size[0]))
        found = words.to_dataset(teacher.label(rgb))
        found_results += coco_results(as_instances(found, *size, names), info["id"])
        masked = [a for a in by_image[info["id"]] if has_outline(a.get("segmentation"))]
        if masked:
            prompted = _prompt(teacher, words, rgb, masked)
            if prompted is not None:
                instances = as_instances(prompted, *size, names)
                prompted_results += coco_results(instances, info["id"])
                records += _compare(prompted, instances, masked, size)
        if progress is not None:
            progress()
    return {
        "detection": evaluate(found_results, truth, category_ids=chosen),
        "prompted": evaluate(prompted_results, truth, category_ids=chosen),
        "mask_iou": _by_size(records),
        "records": records,
    }


def _ignoring_maskless(truth: Mapping[str, Any]) -> dict[str, Any]:
    """Return the annotations with objects that have a box only turned into ignore regions."""
    annotations = []
    for annotation in truth["annotations"]:
        if not has_outline(annotation.get("segmentation")):
            x, y, w, h = annotation["bbox"]
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotation = {**annotation, "iscrowd": 1, "segmentation": [outline]}
        annotations.append(annotation)
    return {**truth, "annotations": annotations}


def _prompt(teacher, words: Vocabulary, rgb, annotations: list[dict]) -> SoftInstances | None:
    xywh = np.array([a["bbox"] for a in annotations], np.float32)
    boxes = bx.clip(np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1), *rgb.shape[:2])
    ids = np.array([a["category_id"] for a in annotations], np.int32)
    masks = teacher.segment(rgb, boxes, words.to_teacher(ids))
    return None if masks is None else SoftInstances(boxes, np.ones(len(ids)), ids, masks)


def _compare(prompted, instances: Instances, annotations: list[dict], size) -> list[dict]:
    from pycocotools import mask as coco_mask  # type: ignore[import-untyped]

    from .merge import mask_score

    records = []
    scores = mask_score(prompted.masks)
    for n, rle in enumerate(instances.masks.to_coco_rle()):
        target = usable_outline(annotations[n]["segmentation"])
        if isinstance(target, list):
            target = coco_mask.merge(coco_mask.frPyObjects(target, *size))
        elif isinstance(target["counts"], list):
            target = coco_mask.frPyObjects(target, *size)
        iou = float(coco_mask.iou([rle], [target], [0])[0, 0])
        records.append(
            {
                "id": annotations[n].get("id"),
                "area": float(annotations[n]["area"]),
                "iou": iou,
                "score": float(scores[n]),
            }
        )
    return records


def _by_size(records: list[dict]) -> dict[str, Any]:
    areas = np.array([r["area"] for r in records])
    ious = np.array([r["iou"] for r in records])
    result: dict[str, Any] = {"count": {}}
    for name, (low, high) in {"all": (0.0, np.inf), **AREAS}.items():
        chosen = ious[(areas >= low) & (areas < high)]
        result[name] = float(chosen.mean()) if len(chosen) else None
        result["count"][name] = len(chosen)
    return result
