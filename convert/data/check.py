"""A dataset looked through before hours of training: what is in it, and what looks wrong."""

from __future__ import annotations

import itertools
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgemask.boxes import iou_matrix
from edgemask.images import load_image

from .bitmaps import MASK_SIZE
from .dataset import CocoDataset, DatasetError, DatasetWarning, Record
from .loader import read_image

__all__ = ["SIDES", "Check", "check_dataset"]

SIDES = (16, 32, 96)  # pixels of the network's input; limits of what is counted by size
FEW_OBJECTS = 50
SAMPLED = 20  # 16-bit images that are decoded, to see whether they use their range


@dataclass
class Check:
    """What :func:`check_dataset` found.

    Attributes
    ----------
    classes : list of dict
        ``id``, ``name``, ``objects``, ``masks``, ``images`` of each class.
    images, empty : int
        Images that can be used, and those of them without objects.
    shapes : Counter of (width, height)
    modes : Counter of Pillow's names of pixel formats
    by_size : dict
        Objects by the root of their box's area in pixels of the network's input.
    sides : (N,) float64
        The same, of each object.
    broken : list of str
        Images that cannot be decoded, which would end the training; nothing else counts them.
    warnings : list of str
        What the trainer would leave out.
    suspicions : list of str
        What is probably wrong; each names the first offender.
    advice : list of str
    """

    classes: list[dict[str, Any]] = field(default_factory=list)
    images: int = 0
    empty: int = 0
    shapes: Counter = field(default_factory=Counter)
    modes: Counter = field(default_factory=Counter)
    by_size: dict[str, int] = field(default_factory=dict)
    sides: np.ndarray = field(default_factory=lambda: np.zeros(0))
    broken: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    suspicions: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def check_dataset(
    annotations: str | Path, images: str | Path, short_side: int = 320, progress=None
) -> Check:
    """Read a dataset as the trainer would, and look for what people get wrong.

    Parameters
    ----------
    annotations : path of the COCO file
    images : folder of its images
    short_side : int
        Shorter side of the network's input, to which sizes refer.
    progress : callable, optional
        Wraps the list of images, twice, as tqdm does.

    Returns
    -------
    Check

    Raises
    ------
    DatasetError
        The trainer would refuse the dataset, or no image can be decoded; the message names the
        first reason.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DatasetWarning)
        data = CocoDataset(annotations, images)
        records, broken = _decodable(data.records(progress), progress)
    raw = json.loads(Path(annotations).read_text(encoding="utf-8"))
    scales = [short_side / min(r.height, r.width) for r in records]
    extents = [(r.boxes[:, 2:] - r.boxes[:, :2]) * s for r, s in zip(records, scales, strict=True)]
    sides = np.sqrt(np.concatenate([e.prod(axis=1) for e in extents])).astype(float)
    check = Check(
        classes=_classes(data, records),
        images=len(records),
        empty=sum(not len(r.boxes) for r in records),
        shapes=Counter((r.width, r.height) for r in records),
        modes=Counter(_mode(r.path) for r in records),
        by_size=_by_size(sides),
        sides=sides,
        broken=broken,
        warnings=[str(w.message) for w in caught if issubclass(w.category, DatasetWarning)],
    )
    check.suspicions = _suspicions(data, raw, records)
    check.advice = _advice(check, short_side, np.concatenate(extents))
    return check


def _decodable(records: list[Record], progress=None) -> tuple[list[Record], list[str]]:
    """Decode every image; return the records of those where it works, and what is wrong else."""
    sound, broken = [], []
    for record in records if progress is None else progress(records):
        try:
            read_image(record)
            sound.append(record)
        except DatasetError as error:
            broken.append(str(error))
    if not sound:
        raise DatasetError(f"none of {len(broken)} images can be decoded, first: {broken[0]}")
    return sound, broken


def _classes(data: CocoDataset, records: list[Record]) -> list[dict[str, Any]]:
    rows = []
    for column, class_id in enumerate(data.classes):
        own = [r.labels == column for r in records]
        rows.append({
            "id": class_id,
            "name": data.category_names[class_id],
            "objects": int(sum(o.sum() for o in own)),
            "masks": int(sum((o & r.has_mask).sum() for o, r in zip(own, records, strict=True))),
            "images": sum(bool(o.any()) for o in own),
        })  # fmt: skip
    return rows


def _mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def _by_size(sides: np.ndarray) -> dict[str, int]:
    limits = (0, *SIDES, np.inf)
    names = [f"below {SIDES[0]}", *(f"{a} to {b}" for a, b in itertools.pairwise(SIDES))]
    names.append(f"{SIDES[-1]} and more")
    counts = np.histogram(sides, limits)[0].tolist()
    return dict(zip(names, counts, strict=True))


def _suspicions(data: CocoDataset, raw: dict[str, Any], records: list[Record]) -> list[str]:
    """Sentences with a count and the first offender."""
    found: dict[str, list[str]] = defaultdict(list)
    shown = {r.image_id for r in records}
    sizes = {im["id"]: (im["width"], im["height"]) for im in raw["images"]}
    for entry in raw["annotations"]:
        if entry["image_id"] in shown and not entry.get("iscrowd"):
            _suspect_annotation(entry, sizes[entry["image_id"]], found)
    for record in records:
        _suspect_image(record, found)
    named = Counter(im["file_name"] for im in raw["images"])
    twice = "files are listed as more than one image, whose labels contradict each other"
    found[twice] += [name for name, count in named.items() if count > 1]
    spelt = defaultdict(list)
    for class_id in data.classes:
        name = data.category_names[class_id]
        spelt[name.strip().casefold()].append(name)
    found["classes have the same name apart from case or spaces"] += [
        " and ".join(map(repr, names)) for names in spelt.values() if len(names) > 1
    ]
    found["classes have no object"] += [
        row["name"] for row in _classes(data, records) if not row["objects"]
    ]
    painted = "classes have more crowd regions, which are not learnt, than objects; if they are "
    painted += "CVAT's painted masks, edgemask-convert split --crowds-as-objects fixes it"
    found[painted] += _crowded(data, raw)
    found["classes have only masks that fill their boxes: are they rectangles, not outlines?"] += (
        _rectangular(data, records)
    )
    deep = [r for r in records if _mode(r.path).startswith("I")]
    found["16-bit images use less than an eighth of the range and will be nearly black"] += [
        str(r.path) for r in deep[:SAMPLED] if np.ptp(load_image(r.path)) < 32
    ]
    return [f"{len(who)} {what}; first: {who[0]}" for what, who in found.items() if who]


def _suspect_annotation(
    entry: dict[str, Any], size: tuple[int, int], found: dict[str, list[str]]
) -> None:
    where = f"annotation {entry['id']} of image {entry['image_id']}"
    x, y, w, h = entry["bbox"]
    beyond = max(-x, -y, x + w - size[0], y + h - size[1])
    if beyond > max(2, 0.01 * max(size)):
        found["boxes stick out of their image"].append(where)
    inside = min(x + w, size[0]) - max(x, 0), min(y + h, size[1]) - max(y, 0)
    outlines = entry.get("segmentation")
    if not outlines or min(inside) < 1:  # the trainer has not looked at the mask of a tiny box
        return
    if isinstance(outlines, dict):
        if "counts" not in outlines:  # a soft mask has no extent but its box
            return
        from pycocotools import mask as coco_mask

        from .rle import to_rle

        mx, my, mw, mh = coco_mask.toBbox(to_rle(outlines, size[1], size[0])).tolist()
        extent = [mx, my, mx + mw, my + mh]
    else:
        points = np.concatenate([np.reshape(p, (-1, 2)) for p in outlines])
        if not len(points):
            return
        extent = [*points.min(axis=0), *points.max(axis=0)]
    overlap = iou_matrix([[x, y, x + w, y + h]], np.array([extent], np.float32))
    if overlap[0, 0] < 0.7 and min(w, h) >= 8:
        found["boxes are not the extent of their masks"].append(where)


def _suspect_image(record: Record, found: dict[str, list[str]]) -> None:
    where = f"image {record.image_id}"
    area = np.prod(record.boxes[:, 2:] - record.boxes[:, :2], axis=1)
    if len(area) > 1 and (area > 0.95 * record.width * record.height).any():
        found["images have a box as large as the image among others"].append(where)
    iou = iou_matrix(record.boxes, record.boxes)
    same = record.labels[:, None] == record.labels[None]
    if (np.triu(iou, 1) * same > 0.95).any():
        found["images have two objects of a class in the same box"].append(where)
    cover = record.bitmaps.reshape(-1, MASK_SIZE**2).mean(axis=1) / 255
    if (record.has_mask & (cover < 0.05)).any():
        found["images have a mask that fills less than a twentieth of its box"].append(where)


def _crowded(data: CocoDataset, raw: dict[str, Any]) -> Iterable[str]:
    for class_id in data.classes:
        flags = [bool(a.get("iscrowd")) for a in raw["annotations"] if a["category_id"] == class_id]
        if 2 * sum(flags) > len(flags):
            yield data.category_names[class_id]


def _rectangular(data: CocoDataset, records: list[Record]) -> Iterable[str]:
    for column, class_id in enumerate(data.classes):
        full = [
            (r.bitmaps[(r.labels == column) & r.has_mask].mean(axis=(1, 2)) > 0.97 * 255)
            for r in records
        ]
        share = np.concatenate(full)
        if len(share) >= 5 and share.mean() > 0.9:
            yield data.category_names[class_id]


def _advice(check: Check, short_side: int, extents: np.ndarray) -> list[str]:
    advice = []
    few = [f"{row['name']} ({row['objects']})" for row in check.classes
           if 0 < row["objects"] < FEW_OBJECTS]  # fmt: skip
    if few:
        shown = ", ".join(few[:8]) + (f" and {len(few) - 8} more classes" if few[8:] else "")
        advice.append(f"few objects of {shown}: label more, or expect little of them")
    boxed = [row["name"] for row in check.classes if row["masks"] < row["objects"]]
    if boxed:
        advice.append(
            f"some objects of {', '.join(boxed)} have a box only; edgemask-convert teach can give "
            "them masks"
        )
    if len(check.sides) and (low := float(np.percentile(check.sides, 10))) < SIDES[0]:
        better = int(np.ceil(short_side * SIDES[0] / low / 32) * 32)
        advice.append(
            f"a tenth of the objects is smaller than {low:.0f} pixels at short side {short_side}; "
            f"with model.short_side = {better} they have {SIDES[0]}, at "
            f"{(better / short_side) ** 2:.1f} times the work"
        )
    if len(extents):
        ratio = extents[:, 1] / extents[:, 0]
        long = float(((ratio > 3) | (ratio < 1 / 3)).mean())
        if long > 0.2:
            advice.append(
                f"{long:.0%} of the boxes are more than three times as long as wide: try "
                "model.rpn.anchor_ratios = [0.4, 1.0, 2.5]"
            )
    if not check.empty:
        advice.append("no image is without objects; add some to teach what is not an object")
    return advice
