"""COCO-format datasets: reading, checking, and one record per image.

Beyond plain COCO two optional image fields are honoured: ``labeled_cats`` (the
category ids that are labelled exhaustively in this image; anything else is
unlabelled, not background) and ``exhaustive`` (0: even those may be missing
some objects).
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

MASK_SIZE = 64  # side of the stored instance bitmaps, relative to the object's box


class DatasetError(ValueError):
    """The dataset cannot be used; the message names the file, image or annotation."""


class DatasetWarning(UserWarning):
    """Part of the dataset was skipped; the message says what and how much."""


@dataclass
class Record:
    """One image and its objects.

    Attributes
    ----------
    image_id : int
    path : Path
    height, width : int
        As the annotation file states them.
    boxes : (G, 4) float32, x0 y0 x1 y1 in pixels
    labels : (G,) int32, index into the class list
    bitmaps : (G, 64, 64) uint8, 0..255 coverage inside the object's box
    has_mask : (G,) bool
    ignore : (K, 4) float32 boxes of crowd regions
    labeled : (C,) bool, classes labelled exhaustively here
    exhaustive : bool
    """

    image_id: int
    path: Path
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    bitmaps: np.ndarray
    has_mask: np.ndarray
    ignore: np.ndarray
    labeled: np.ndarray
    exhaustive: bool


def box_bitmap(segmentation: Any, box: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """Rasterise one object inside its own box.

    Parameters
    ----------
    segmentation : list of polygons, or RLE dict
        As in COCO. An empty list gives None.
    box : (4,) x0 y0 x1 y1
    height, width : int
        Image size, needed for RLE given as polygons' counterpart.

    Returns
    -------
    (64, 64) uint8 or None
        Area coverage 0..255 of each cell, None where there is no usable mask.
    """
    if not segmentation:
        return None
    x0, y0, x1, y1 = (float(v) for v in box)
    if x1 <= x0 or y1 <= y0:
        return None
    if isinstance(segmentation, dict):
        from pycocotools import mask as coco_mask

        if isinstance(segmentation["counts"], list):
            segmentation = coco_mask.frPyObjects(segmentation, height, width)
        dense = Image.fromarray(coco_mask.decode(segmentation) * np.uint8(255))
        bitmap = dense.resize((MASK_SIZE, MASK_SIZE), Image.Resampling.BOX, box=(x0, y0, x1, y1))
        return np.asarray(bitmap)
    # Draw at four times the resolution and average: anti-aliasing without extra libraries.
    fine = MASK_SIZE * 4
    canvas = Image.new("L", (fine, fine))
    draw = ImageDraw.Draw(canvas)
    scale = np.array([fine / (x1 - x0), fine / (y1 - y0)])
    usable = False
    for polygon in segmentation:
        points = np.asarray(polygon, np.float64).reshape(-1, 2)
        if len(points) < 3:
            continue
        # ImageDraw takes pixel indices: pixel i covers [i, i+1).
        points = (points - (x0, y0)) * scale - 0.5
        draw.polygon([tuple(p) for p in points], fill=255)
        usable = True
    if not usable:
        return None
    bitmap = np.asarray(canvas.reduce(4))
    return bitmap if bitmap.any() else None


class CocoDataset:
    """A COCO annotation file joined with its image folder.

    Parameters
    ----------
    annotations : path of the JSON file
    images : folder with the photographs
    classes : list of int, or None
        COCO category ids to keep, in the order of the network's columns; None
        keeps all categories of the file.

    Raises
    ------
    DatasetError
        Unreadable JSON, a missing section, no image that exists, duplicate ids,
        a class that the file does not know.
    """

    def __init__(
        self, annotations: str | Path, images: str | Path, classes: list[int] | None = None
    ):
        self.path = Path(annotations)
        self.folder = Path(images)
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DatasetError(f"cannot read {annotations}: {error.strerror}") from error
        except ValueError as error:
            raise DatasetError(f"{annotations} is not JSON: {error}") from error
        for key in ("images", "annotations", "categories"):
            if not isinstance(data, dict) or not isinstance(data.get(key), list):
                raise DatasetError(f"{annotations} is not COCO: it has no list {key!r}")
        self.category_names = {c["id"]: c["name"] for c in data["categories"]}
        self.classes = list(self.category_names) if classes is None else list(classes)
        unknown = [c for c in self.classes if c not in self.category_names]
        if unknown:
            raise DatasetError(
                f"class ids {unknown} are not in {annotations}; it has "
                f"{sorted(self.category_names)}"
            )
        self._index = {c: i for i, c in enumerate(self.classes)}
        self._check_ids(data)
        if not self.folder.is_dir():
            raise DatasetError(f"{images} is not a folder of images")
        present = {p.name for p in self.folder.iterdir()}
        kept = [im for im in data["images"] if im["file_name"] in present]
        missing = len(data["images"]) - len(kept)
        if not kept:
            raise DatasetError(f"none of the {missing} images of {annotations} is in {images}")
        if missing:
            gone = next(im for im in data["images"] if im["file_name"] not in present)
            warnings.warn(
                f"{missing} images of {self.path.name} are missing in {images}, first: "
                f"{gone['file_name']} (id {gone['id']})",
                DatasetWarning,
                stacklevel=2,
            )
        self.images = kept
        self._annotations: dict[int, list[dict]] = {im["id"]: [] for im in kept}
        for annotation in data["annotations"]:
            if annotation["image_id"] in self._annotations:
                self._annotations[annotation["image_id"]].append(annotation)

    def _check_ids(self, data: dict) -> None:
        for key in ("images", "annotations"):
            counts = Counter(item["id"] for item in data[key])
            twice = [i for i, n in counts.items() if n > 1]
            if twice:
                raise DatasetError(
                    f"{self.path}: {key} id {twice[0]} occurs {counts[twice[0]]} times"
                )
        known = {im["id"] for im in data["images"]}
        lost = [a["id"] for a in data["annotations"] if a["image_id"] not in known]
        if lost:
            warnings.warn(
                f"{len(lost)} annotations of {self.path.name} name images it does not list, "
                f"first: annotation {lost[0]}",
                DatasetWarning,
                stacklevel=3,
            )
        odd = {a["category_id"] for a in data["annotations"]} - set(self.category_names)
        if odd:
            raise DatasetError(f"{self.path}: annotations use unknown category ids {sorted(odd)}")

    def __len__(self) -> int:
        return len(self.images)

    def records(self, progress=None) -> list[Record]:
        """Rasterise every object and return one :class:`Record` per image.

        Degenerate objects (a box of less than one pixel, or outside the image)
        are dropped with one warning that counts them.
        """
        made, dropped = [], []
        images = self.images if progress is None else progress(self.images)
        for info in images:
            made.append(self._record(info, dropped))
        if dropped:
            warnings.warn(
                f"{len(dropped)} objects of {self.path.name} have a box of less than a pixel "
                f"inside the image and were dropped, first: annotation {dropped[0]}",
                DatasetWarning,
                stacklevel=2,
            )
        return made

    def _record(self, info: dict, dropped: list[int]) -> Record:
        height, width = int(info["height"]), int(info["width"])
        boxes, labels, bitmaps, has_mask, ignore = [], [], [], [], []
        for annotation in self._annotations[info["id"]]:
            if annotation["category_id"] not in self._index:
                continue
            x, y, w, h = annotation["bbox"]
            box = np.array([x, y, x + w, y + h], np.float32)
            inside = np.clip(box, 0, [width, height, width, height])
            if annotation.get("iscrowd"):
                ignore.append(inside)
                continue
            if inside[2] - inside[0] < 1 or inside[3] - inside[1] < 1:
                dropped.append(annotation["id"])
                continue
            bitmap = box_bitmap(annotation.get("segmentation"), inside, height, width)
            boxes.append(inside)
            labels.append(self._index[annotation["category_id"]])
            has_mask.append(bitmap is not None)
            bitmaps.append(np.zeros((MASK_SIZE, MASK_SIZE), np.uint8) if bitmap is None else bitmap)
        labeled = info.get("labeled_cats", self.classes)
        return Record(
            image_id=info["id"],
            path=self.folder / info["file_name"],
            height=height,
            width=width,
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array(labels, np.int32),
            bitmaps=np.array(bitmaps, np.uint8).reshape(-1, MASK_SIZE, MASK_SIZE),
            has_mask=np.array(has_mask, bool),
            ignore=np.array(ignore, np.float32).reshape(-1, 4),
            labeled=np.array([c in labeled for c in self.classes], bool),
            exhaustive=bool(info.get("exhaustive", 1)),
        )
