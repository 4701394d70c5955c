"""What of a teacher's labels is believed, next to the labels that people made.

Ground truth always wins. A teacher may do two things: give a mask to an object that has a box
only, and add objects where the labels do not claim to be complete. How complete they are, two
optional fields of an image say: ``labeled_cats`` (ids of the categories of which every instance
is labelled; all, if the field is missing) and ``exhaustive`` (0: even of those some may be
missing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask import boxes as bx
from edgemask import rle
from edgemask.coco_types import has_outline
from edgemask.errors import InputError
from edgemask.roi_align import roi_align

from ..data.soft_mask import encode_soft_mask
from .protocol import Floats, SoftInstances, Teacher, TeacherError, check_masks
from .vocabulary import Vocabulary

__all__ = ["Rules", "Taught", "mask_score", "open_categories", "teach_image"]


@dataclass(frozen=True)
class Rules:
    """The thresholds of the merge.

    Attributes
    ----------
    accept : float
        A detection of at least this score becomes an instance.
    doubt : float
        One of at least this score, but below `accept`, becomes an ignore region.
    mask_score : float
        A mask whose mean probability inside is lower is not used; the box is.
    duplicate_iou : float
        A detection that overlaps a labelled object of its category so much is that object.
    other_iou : float
        One that coincides so much with a labelled object of another category contradicts it.
    crowd_share : float
        One of which so much lies in a crowd region of its category is part of the crowd.
    """

    accept: float = 0.5
    doubt: float = 0.25
    mask_score: float = 0.7
    duplicate_iou: float = 0.5
    other_iou: float = 0.7
    crowd_share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.doubt <= self.accept <= 1:
            raise InputError(
                f"--doubt {self.doubt} and --accept {self.accept}: give 0 <= doubt <= accept <= 1"
            )
        if not 0 <= self.mask_score <= 1:
            raise InputError(f"--mask-score is {self.mask_score}: give a number from 0 to 1")


@dataclass
class Taught:
    """What a teacher contributes to one image, JSON-ready.

    Attributes
    ----------
    looked_for : list of int
        Categories of which instances could be added here.
    filled : dict of annotation id to dict
        Fields to add to annotations that had no mask.
    added : list of dict
        New annotations, without ids.
    """

    looked_for: list[int]
    filled: dict[int, dict[str, Any]]
    added: list[dict[str, Any]]


def mask_score(masks: Floats, threshold: float = 0.5) -> Floats:
    """Return the mean probability inside each mask (N, S, S); 0 where the mask is empty."""
    inside = masks >= threshold
    total = np.einsum("nij,nij->n", masks, inside, dtype=np.float32)
    return total / np.maximum(inside.sum(axis=(1, 2), dtype=np.float32), np.float32(1))


def open_categories(info: Mapping[str, Any], known: Sequence[int]) -> list[int]:
    """Return those of the known categories of which an image may have unlabelled instances."""
    if info.get("exhaustive", 1) == 0:
        return list(known)
    labelled = info.get("labeled_cats")
    return [] if labelled is None else [c for c in known if c not in labelled]


def teach_image(
    image: NDArray[np.uint8],
    info: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    teacher: Teacher,
    words: Vocabulary,
    rules: Rules,
) -> Taught:
    """Ask the teacher about one image, and keep what the labels allow.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3), RGB
    info : dict
        The image's entry in the COCO file.
    annotations : sequence of dict
        All annotations of this image.
    teacher : Teacher
    words : Vocabulary
    rules : Rules

    Raises
    ------
    TeacherError
        The teacher returns something that is not what the protocol says.
    """
    size = image.shape[:2]
    missing_in = open_categories(info, words.known)
    lacking = [a for a in annotations if _lacks_mask(a, words.known, size)]
    found: SoftInstances | None = None
    if missing_in:
        found = words.to_dataset(teacher.label(image))
    filled = {}
    if lacking:
        boxes = bx.clip(_corners(lacking), *size)
        ids = np.array([a["category_id"] for a in lacking], np.int32)
        raw = teacher.segment(image, boxes, words.to_teacher(ids))
        if raw is None:
            found = words.to_dataset(teacher.label(image)) if found is None else found
            masks = _masks_in_place(found, boxes, ids, rules.duplicate_iou)
        else:
            masks = check_masks(raw, len(boxes))
        for annotation, fields in zip(lacking, _mask_fields(masks, rules), strict=True):
            if fields:
                filled[annotation["id"]] = {"mask_source": "teacher", **fields}
    added = []
    if missing_in and found is not None:
        added = _additions(found, missing_in, annotations, info["id"], size, rules)
    return Taught(missing_in, filled, added)


def _corners(annotations: Sequence[Mapping[str, Any]]) -> Floats:
    xywh = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def _lacks_mask(annotation: Mapping[str, Any], known: Sequence[int], size: tuple[int, int]) -> bool:
    if annotation.get("iscrowd") or annotation.get("soft_mask"):
        return False
    if has_outline(annotation.get("segmentation")):
        return False
    x0, y0, x1, y1 = bx.clip(_corners([annotation]), *size)[0]
    return annotation["category_id"] in known and x1 - x0 >= 1 and y1 - y0 >= 1


def _mask_fields(masks: Floats, rules: Rules) -> list[dict[str, Any]]:
    """Return the fields of each mask; none for one that is empty or too unsure."""
    return [
        {"soft_mask": encode_soft_mask(mask), "mask_score": round(float(score), 4)}
        if score > 0 and score >= rules.mask_score
        else {}
        for mask, score in zip(masks, mask_score(masks), strict=True)
    ]


def _masks_in_place(
    found: SoftInstances, boxes: Floats, ids: NDArray[np.int32], least_iou: float
) -> Floats:
    """Take for each box the mask of the detection that overlaps it most, resampled to the box.

    Where no detection of the same class reaches `least_iou` the mask is empty.
    """
    side = found.masks.shape[1]
    out = np.zeros((len(boxes), side, side), np.float32)
    if not len(found):
        return out
    overlap = bx.iou_matrix(boxes, found.boxes) * (ids[:, None] == found.class_ids)
    best = overlap.argmax(axis=1)
    usable = np.flatnonzero(overlap[np.arange(len(boxes)), best] >= least_iou)
    if len(usable):
        chosen = best[usable]
        source = found.boxes[chosen]
        # In cells of the detection's mask; a border of zeros is what lies outside of its box.
        cells = (boxes[usable] - np.tile(source[:, :2], 2)) * np.float32(side)
        cells = cells / np.tile(source[:, 2:] - source[:, :2], 2) + np.float32(1)
        levels = [np.pad(found.masks[n], 1)[:, :, None] for n in chosen]
        order = np.arange(len(usable))
        out[usable] = roi_align(levels, cells, order, [1] * len(levels), side, 2)[..., 0]
    return np.clip(out, 0, 1)


def _additions(
    found: SoftInstances,
    allowed: Sequence[int],
    annotations: Sequence[Mapping[str, Any]],
    image_id: int,
    size: tuple[int, int],
    rules: Rules,
) -> list[dict[str, Any]]:
    boxes = bx.clip(found.boxes, *size)
    if np.abs(boxes - found.boxes).max(initial=0) > 0.01:  # clipping here would move its mask
        raise TeacherError("a box of the teacher leaves the image: clip boxes to the image")
    keep = np.isin(found.class_ids, allowed) & (found.scores >= rules.doubt)
    keep &= ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)
    keep &= ~_denied(boxes, found.class_ids, annotations, rules)
    chosen, boxes = found[keep], boxes[keep]
    added = []
    for n, fields in enumerate(_mask_fields(chosen.masks, rules)):
        x0, y0, x1, y1 = (round(float(v), 2) for v in boxes[n])
        entry: dict[str, Any] = {
            "image_id": image_id,
            "category_id": int(chosen.class_ids[n]),
            "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
            "score": round(float(chosen.scores[n]), 4),
            "source": "teacher",
        }
        box_area = (x1 - x0) * (y1 - y0)
        if chosen.scores[n] >= rules.accept:
            share = float((chosen.masks[n] >= 0.5).mean()) if fields else 1.0
            entry |= {
                "iscrowd": 0,
                "segmentation": [],
                "area": round(share * box_area, 2),
                **fields,
            }
        else:
            entry |= {"iscrowd": 1, "segmentation": _box_rle(boxes[n], size)}
            entry["area"] = round(box_area, 2)
        added.append(entry)
    return added


def _denied(
    boxes: Floats,
    ids: NDArray[np.int32],
    annotations: Sequence[Mapping[str, Any]],
    rules: Rules,
) -> NDArray[np.bool_]:
    """Return which detections the annotations already hold, or contradict."""
    if not annotations:
        return np.zeros(len(boxes), np.bool_)
    labelled = _corners(annotations)
    same = ids[:, None] == np.array([a["category_id"] for a in annotations])
    crowd = np.array([bool(a.get("iscrowd")) for a in annotations])
    iou = bx.iou_matrix(boxes, labelled)
    overlap = np.minimum(boxes[:, None, 2:], labelled[:, 2:])
    overlap = np.maximum(overlap - np.maximum(boxes[:, None, :2], labelled[:, :2]), 0)
    share = overlap.prod(axis=2) / np.maximum(bx.area(boxes), np.float32(1e-6))[:, None]
    duplicate = same & ~crowd & (iou >= rules.duplicate_iou)
    contradicted = ~same & ~crowd & (iou >= rules.other_iou)
    in_crowd = same & crowd & (share >= rules.crowd_share)
    return (duplicate | contradicted | in_crowd).any(axis=1)


def _box_rle(box: Floats, size: tuple[int, int]) -> dict[str, Any]:
    """Return a COCO RLE of all pixels that a box touches."""
    x0, y0 = (int(np.floor(v)) for v in box[:2])
    x1, y1 = (int(np.ceil(v)) for v in box[2:])
    filled = np.ones((y1 - y0, x1 - x0), np.bool_)
    return {"size": list(size), "counts": rle.encode_crop(filled, x0, y0, *size).decode("ascii")}
