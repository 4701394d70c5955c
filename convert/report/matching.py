"""Which detection finds which object, by COCO's rules, kept so that questions can be asked.

pycocotools keeps averages. The report also wants to know why a detection was wrong and which
objects were missed, so the matching is done here once more; a test holds it to pycocotools' AP.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgemask.coco_types import truth_for
from edgemask.evaluate import MAX_DETECTIONS

from ..data.rle import to_rle

__all__ = ["Matches", "match"]


@dataclass(frozen=True)
class Matches:
    """Detections and objects of the chosen classes, D and G of them, over all images.

    Attributes
    ----------
    thresholds : tuple of float, length T
        IoU that makes a match.
    class_ids : tuple of int
        What was matched.
    images : list of int
        Ids of the images, objects or none.
    results : list of mapping, length D
        The detections, by image, the best first.
    image, category : (D,) int
        Image id and class of each detection.
    score : (D,) float64
    found : (T, D) int
        The object that each detection found, -1 if none.
    overlap : (T, D) float64
        IoU with it, 0 if none.
    ignored : (T, D) bool
        Counts for nothing: it lies in a crowd, or the labels of its image do not say.
    own_iou, other_iou : (D,) float64
        Largest IoU with an object of the same class, and of another.
    annotations : list of mapping, length G
    truth_image, truth_category : (G,) int
    area : (G,) float64
        Pixels, as the annotation says.
    countable : (G,) bool
        False for crowds, and for masks of objects that have only a box.
    """

    thresholds: tuple[float, ...]
    class_ids: tuple[int, ...]
    images: list[int]
    results: list[Mapping[str, Any]]
    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    found: np.ndarray
    overlap: np.ndarray
    ignored: np.ndarray
    own_iou: np.ndarray
    other_iou: np.ndarray
    annotations: list[Mapping[str, Any]]
    truth_image: np.ndarray
    truth_category: np.ndarray
    area: np.ndarray
    countable: np.ndarray

    def level(self, threshold: float) -> int:
        """Row of `found` and `ignored` for an IoU threshold."""
        return self.thresholds.index(threshold)


def match(
    results: Sequence[Mapping[str, Any]],
    truth: Mapping[str, Any],
    class_ids: Sequence[int],
    kind: str = "segm",
    thresholds: Sequence[float] = (0.5, 0.75),
) -> Matches:
    """Match detections with objects, the best detection first, within each image and class.

    Parameters
    ----------
    results : sequence of mapping
        COCO results.
    truth : mapping
        What :func:`edgemask.evaluate.load_annotations` returned; ``labeled_cats`` and
        ``exhaustive`` of its images are respected.
    class_ids : sequence of int
    kind : ``segm`` or ``bbox``
    thresholds : sequence of float

    Returns
    -------
    Matches
    """
    chosen = set(class_ids)
    labelled = {
        im["id"]: chosen if im.get("labeled_cats") is None else chosen & set(im["labeled_cats"])
        for im in truth["images"]
    }
    sizes = {im["id"]: (im["height"], im["width"]) for im in truth["images"]}
    partial = {im["id"] for im in truth["images"] if im.get("exhaustive", 1) == 0}
    by_image: dict[str, dict[int, list[Any]]] = {"dt": defaultdict(list), "gt": defaultdict(list)}
    for entry in truth_for(truth["annotations"], kind):
        if entry["category_id"] in labelled[entry["image_id"]]:
            by_image["gt"][entry["image_id"]].append(entry)
    for entry in results:
        if entry["category_id"] in labelled.get(entry["image_id"], ()):
            by_image["dt"][entry["image_id"]].append(entry)
    rows = _Rows(tuple(thresholds))
    for image_id in sizes:
        found = by_image["dt"].get(image_id, [])
        objects = by_image["gt"].get(image_id, [])
        if found or objects:
            rows.add(_best(found), objects, kind, sizes[image_id], image_id in partial)
    return rows.finish(tuple(class_ids), list(sizes))


def _best(found: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """In the order of the scores, at most a hundred of each class."""
    kept, counts = [], defaultdict(int)
    for entry in sorted(found, key=lambda entry: -entry["score"]):
        counts[entry["category_id"]] += 1
        if counts[entry["category_id"]] <= MAX_DETECTIONS:
            kept.append(entry)
    return kept


class _Rows:
    """Collects one image after the other."""

    def __init__(self, thresholds: tuple[float, ...]):
        self.thresholds = thresholds
        self.results: list[Mapping[str, Any]] = []
        self.annotations: list[Mapping[str, Any]] = []
        self.found: list[np.ndarray] = []
        self.overlap: list[np.ndarray] = []
        self.ignored: list[np.ndarray] = []
        self.own: list[np.ndarray] = []
        self.other: list[np.ndarray] = []

    def add(
        self,
        found: list[Mapping[str, Any]],
        objects: list[Mapping[str, Any]],
        kind: str,
        size: tuple[int, int],
        partial: bool,
    ) -> None:
        iou = _iou(found, objects, kind, size)
        classes = np.array([entry["category_id"] for entry in found], int)
        theirs = np.array([entry["category_id"] for entry in objects], int)
        crowd = np.array([bool(entry["iscrowd"]) for entry in objects], bool)
        same = classes[:, None] == theirs[None]
        real = iou * ~crowd
        self.own.append((real * same).max(axis=1, initial=0))
        self.other.append((real * ~same).max(axis=1, initial=0))
        matched = np.full((len(self.thresholds), len(found)), -1)
        overlap, ignored = np.zeros(matched.shape), np.zeros(matched.shape, bool)
        for level, threshold in enumerate(self.thresholds):
            taken = np.zeros(len(objects), bool)
            for n in range(len(found)):
                hit = same[n] & (iou[n] >= min(threshold, 1 - 1e-10))
                free = np.flatnonzero(hit & ~crowd & ~taken)
                if len(free):
                    best = free[len(free) - 1 - iou[n, free][::-1].argmax()]  # COCO: the last
                    taken[best], matched[level, n] = True, len(self.annotations) + best
                    overlap[level, n] = iou[n, best]
                elif (hit & crowd).any() or partial:
                    ignored[level, n] = True
        self.found.append(matched)
        self.overlap.append(overlap)
        self.ignored.append(ignored)
        self.results += found
        self.annotations += objects

    def finish(self, class_ids: tuple[int, ...], images: list[int]) -> Matches:
        empty = np.zeros((len(self.thresholds), 0))

        def column(entries: list[Mapping[str, Any]], key: str, dtype: type) -> np.ndarray:
            return np.array([entry[key] for entry in entries], dtype)

        return Matches(
            thresholds=self.thresholds,
            class_ids=class_ids,
            images=images,
            results=self.results,
            image=column(self.results, "image_id", int),
            category=column(self.results, "category_id", int),
            score=column(self.results, "score", float),
            found=np.concatenate([empty.astype(int), *self.found], axis=1),
            overlap=np.concatenate([empty, *self.overlap], axis=1),
            ignored=np.concatenate([empty.astype(bool), *self.ignored], axis=1),
            own_iou=np.concatenate([empty[0], *self.own]),
            other_iou=np.concatenate([empty[0], *self.other]),
            annotations=self.annotations,
            truth_image=column(self.annotations, "image_id", int),
            truth_category=column(self.annotations, "category_id", int),
            area=column(self.annotations, "area", float),
            countable=~column(self.annotations, "iscrowd", bool),
        )


def _iou(
    found: list[Mapping[str, Any]],
    objects: list[Mapping[str, Any]],
    kind: str,
    size: tuple[int, int],
) -> np.ndarray:
    """IoU (D, G) of one image; with a crowd it is the share of the detection that lies in it."""
    from pycocotools import mask as coco_mask

    if not found or not objects:
        return np.zeros((len(found), len(objects)))
    crowd = [int(entry["iscrowd"]) for entry in objects]
    if kind == "bbox":
        sides = [np.array([e["bbox"] for e in entries], float) for entries in (found, objects)]
    else:
        sides = [
            [to_rle(e["segmentation"], *size) for e in entries] for entries in (found, objects)
        ]
    return np.asarray(coco_mask.iou(*sides, crowd))
