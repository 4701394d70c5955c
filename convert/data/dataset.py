"""COCO-format datasets: reading, checking, and one record per image.

Beyond plain COCO two optional image fields are honoured: ``labeled_cats`` (the
category ids that are labelled exhaustively in this image; anything else is
unlabelled, not background) and ``exhaustive`` (0: even those may be missing
some objects).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from edgemask.coco_types import has_outline
from edgemask.images import MAX_PIXELS
from edgemask.keypoints import NAMES

from .bitmaps import MASK_SIZE, box_bitmap
from .coco_fields import MAX_COORDINATE, DatasetError, check_fields, check_ids
from .keypoints import keypoint_order, read_keypoints

TIFF_WIDTH, TIFF_HEIGHT = 256, 257  # numbers of tags


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
    keypoints : (G, 17, 3) float32, x, y in pixels and visibility, 0 where not labelled
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
    keypoints: np.ndarray
    ignore: np.ndarray
    labeled: np.ndarray
    exhaustive: bool


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none, as in :mod:`edgemask.images`."""
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF does not make the picture unusable
        return 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after the EXIF orientation, of an image that is not decoded yet."""
    if orientation(image) not in (5, 6, 7, 8):
        return image.size
    # Pillow's size of a TIFF is the upright one in some versions; its tags are as they are.
    tags = getattr(image, "tag_v2", {})
    return tags.get(TIFF_HEIGHT, image.height), tags.get(TIFF_WIDTH, image.width)


def read_size(path: Path, info: dict) -> tuple[int, int]:
    """Width and height as they are seen, from the header alone.

    Raises
    ------
    DatasetError
        The file is no image; `info` is its entry in the annotations.
    """
    try:
        with Image.open(path) as image:
            return upright_size(image)
    except Exception as error:  # Pillow answers damaged data with nearly any exception
        raise DatasetError(f"image {info['id']}: cannot read {path}: {error}") from error


def check_size(path: Path, info: dict, size: tuple[int, int]) -> None:
    """Refuse an image of another size than its annotations say."""
    if size != (info["width"], info["height"]):
        raise DatasetError(
            f"image {info['id']}: {path} is {size[0]}x{size[1]}, the annotations say "
            f"{info['width']}x{info['height']}"
        )


def _corners(annotation: dict) -> np.ndarray:
    """x0 y0 x1 y1 of a COCO box."""
    values = annotation["bbox"]
    numbers = isinstance(values, list) and all(
        isinstance(v, int | float) and abs(v) <= MAX_COORDINATE for v in values
    )
    if not numbers or len(values) != 4:
        raise DatasetError(
            f"annotation {annotation['id']} of image {annotation['image_id']}: bbox {values!r} is "
            f"not four finite numbers x y width height below {MAX_COORDINATE:g}"
        )
    x, y, w, h = values
    return np.array([x, y, x + w, y + h], np.float32)


def check_objects(
    records: Sequence[Record], names: Mapping[int, str], annotations: str | Path
) -> None:
    """See to it that there is something to learn.

    Parameters
    ----------
    records : sequence of Record
    names : mapping of int to str
        The categories, by id.
    annotations : path
        Where they come from, for the message.

    Raises
    ------
    DatasetError
        No image has an object.
    """
    if not any(len(record.labels) for record in records):
        crowds = sum(len(record.ignore) for record in records)
        hint = "check model.classes"
        if crowds:
            hint = f"{crowds} are crowds, which edgemask-convert split --crowds-as-objects changes"
        raise DatasetError(
            f"{annotations} has no object of the classes that are trained: {hint}; its categories "
            f"are {dict(list(names.items())[:10])}"
        )


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
        Unreadable JSON, a missing section or field, no image that exists, duplicate
        ids, a class that the file does not know.
    """

    def __init__(
        self, annotations: str | Path, images: str | Path, classes: list[int] | None = None
    ):
        self.path, self.folder = Path(annotations), Path(images)
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DatasetError(f"cannot read {annotations}: {error.strerror}") from error
        except ValueError as error:
            raise DatasetError(f"{annotations} is not JSON: {error}") from error
        check_fields(data, str(annotations))
        self.category_names = {c["id"]: c["name"] for c in data["categories"]}
        self.classes = list(self.category_names) if classes is None else list(classes)
        unknown = [c for c in self.classes if c not in self.category_names]
        if unknown:
            raise DatasetError(
                f"class ids {unknown} are not in {annotations}; it has "
                f"{sorted(self.category_names)}"
            )
        self._index = {c: i for i, c in enumerate(self.classes)}
        self._orders = {c["id"]: keypoint_order(c) for c in data["categories"]}
        self._check_ids(data)
        if not self.folder.is_dir():
            raise DatasetError(f"{images} is not a folder of images")
        kept = [im for im in data["images"] if (self.folder / im["file_name"]).is_file()]
        missing = len(data["images"]) - len(kept)
        if not kept:
            raise DatasetError(f"none of the {missing} images of {annotations} is in {images}")
        if missing:
            found = {im["id"] for im in kept}
            gone = next(im for im in data["images"] if im["id"] not in found)
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
        check_ids(data, str(self.path))
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

        Left out with one warning that counts them: files that are no images or have more
        than 100 megapixels, degenerate objects (a box of less than one pixel, or outside
        the image), and masks without area, whose boxes are kept.

        Raises
        ------
        DatasetError
            An image of another size than the annotations say, an annotation that cannot be
            read, or no image that can; the message names its id.
        """
        made: list[Record] = []
        unreadable: list[str] = []
        dropped: list[int] = []
        hollow: list[int] = []
        for info in self.images if progress is None else progress(self.images):
            # The header only: a wrong size must not wait until a batch happens to meet it.
            if self._check_image(info, unreadable):
                made.append(self._record(info, dropped, hollow))
        for what, found in (
            ("files are not images, or too large, and were left out, first:", unreadable),
            (
                "objects have a box of less than a pixel inside the image and were dropped, "
                "first: annotation",
                dropped,
            ),
            ("objects have a mask without area and keep only their box, first: annotation", hollow),
        ):
            if found:
                warnings.warn(
                    f"{self.path.name}: {len(found)} {what} {found[0]}",
                    DatasetWarning,
                    stacklevel=2,
                )
        if not made:
            raise DatasetError(f"{self.folder} has no image that can be read")
        return made

    def _check_image(self, info: dict, unreadable: list[str]) -> bool:
        path = self.folder / info["file_name"]
        try:
            width, height = read_size(path, info)
        except DatasetError:
            width, height = 0, 0
        if not 0 < width * height <= MAX_PIXELS:
            unreadable.append(f"{path} (id {info['id']})")
            return False
        check_size(path, info, (width, height))
        return True

    def _record(self, info: dict, dropped: list[int], hollow: list[int]) -> Record:
        height, width = int(info["height"]), int(info["width"])
        boxes, labels, bitmaps, has_mask, keypoints, ignore = [], [], [], [], [], []
        for annotation in self._annotations[info["id"]]:
            if annotation["category_id"] not in self._index:
                continue
            box = _corners(annotation)
            inside = np.clip(box, 0, [width, height, width, height])
            if annotation.get("iscrowd"):
                ignore.append(inside)
                continue
            if inside[2] - inside[0] < 1 or inside[3] - inside[1] < 1:
                dropped.append(annotation["id"])
                continue
            segmentation = annotation.get("segmentation")
            if not has_outline(segmentation):  # a teacher may have filled it
                segmentation = annotation.get("soft_mask") or segmentation
            try:
                bitmap = box_bitmap(segmentation, inside, height, width)
                points = read_keypoints(annotation, self._orders[annotation["category_id"]])
            except (ValueError, TypeError, KeyError) as error:
                raise DatasetError(
                    f"annotation {annotation['id']} of image {info['id']}: {error}"
                ) from error
            if bitmap is None and segmentation:
                hollow.append(annotation["id"])
            boxes.append(inside)
            labels.append(self._index[annotation["category_id"]])
            has_mask.append(bitmap is not None)
            keypoints.append(points)
            bitmaps.append(np.zeros((MASK_SIZE, MASK_SIZE), np.uint8) if bitmap is None else bitmap)
        labeled = info.get("labeled_cats")
        return Record(
            image_id=info["id"],
            path=self.folder / info["file_name"],
            height=height,
            width=width,
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array(labels, np.int32),
            bitmaps=np.array(bitmaps, np.uint8).reshape(-1, MASK_SIZE, MASK_SIZE),
            has_mask=np.array(has_mask, bool),
            keypoints=np.array(keypoints, np.float32).reshape(-1, len(NAMES), 3),
            ignore=np.array(ignore, np.float32).reshape(-1, 4),
            labeled=np.array([labeled is None or c in labeled for c in self.classes], bool),
            exhaustive=info.get("exhaustive", 1) != 0,
        )
