"""Numbers from matches: curves, calibration, false alarms, kinds of error, quality per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .matching import Matches

__all__ = [
    "ERRORS",
    "Calibration",
    "ScoreCurve",
    "calibration",
    "empty_images",
    "error_types",
    "false_alarms",
    "image_quality",
    "missed_by_size",
    "precision_at_recall",
    "score_curve",
]

RECALLS = np.linspace(0, 1, 101)
SIZES = (("small", 0, 32**2), ("medium", 32**2, 96**2), ("large", 96**2, np.inf))
ERRORS = {
    "duplicate": "a second detection of an object",
    "place": "overlaps an object of its class, but too little (IoU .1 to .5)",
    "class": "in the right place, another class",
    "both": "overlaps an object of another class, but too little",
    "background": "overlaps nothing that is labelled",
}
_NEAR, _SAME = 0.1, 0.5


def precision_at_recall(matches: Matches, threshold: float) -> np.ndarray:
    """Precision at 101 recalls, interpolated and averaged over classes as COCO does.

    Returns
    -------
    (101,) float64
        Its mean is COCO's AP at this IoU. NaN if there is no object.
    """
    level, curves = matches.level(threshold), []
    for class_id in matches.class_ids:
        total = int((matches.countable & (matches.truth_category == class_id)).sum())
        if not total:
            continue
        chosen = (matches.category == class_id) & ~matches.ignored[level]
        order = np.argsort(-matches.score[chosen], kind="stable")
        hits = (matches.found[level, chosen] >= 0)[order]
        right = np.cumsum(hits)
        precision = right / np.arange(1, len(hits) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(right / total, RECALLS, side="left")
        curves.append(np.append(precision, 0.0)[np.minimum(at, len(precision))])
    return np.mean(curves, axis=0) if curves else np.full(len(RECALLS), np.nan)


@dataclass(frozen=True)
class ScoreCurve:
    """Precision, recall and F1 of all detections from a score on, all classes together.

    `score` (K,) is descending; the others belong to it.
    """

    score: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    def at(self, score: float) -> tuple[float, float, float]:
        """Precision (NaN where nothing is found), recall and F1 from this score on."""
        n = int(np.searchsorted(-self.score, -score, side="right")) - 1
        if n < 0:
            return float("nan"), 0.0, 0.0
        return float(self.precision[n]), float(self.recall[n]), float(self.f1[n])

    def best(self) -> float:
        """The score, in hundredths as it is shown, from which on F1 is largest; else 0.5."""
        if not len(self.f1) or not self.f1.any():
            return 0.5
        hundredths = [n / 100 for n in range(100, -1, -1)]
        return max(hundredths, key=lambda score: self.at(score)[2])  # the first of equals


def score_curve(matches: Matches, threshold: float = _SAME) -> ScoreCurve:
    """See :class:`ScoreCurve`."""
    level = matches.level(threshold)
    chosen = ~matches.ignored[level]
    score, hits = matches.score[chosen], matches.found[level, chosen] >= 0
    order = np.argsort(-score, kind="stable")
    score, right = score[order], np.cumsum(hits[order])
    last = np.append(score[1:] != score[:-1], True) if len(score) else np.zeros(0, bool)
    count = np.arange(1, len(score) + 1)[last]
    score, right, total = score[last], right[last], int(matches.countable.sum())
    precision = right / np.maximum(count, 1)
    recall = right / max(total, 1)
    return ScoreCurve(score, precision, recall, 2 * right / np.maximum(count + total, 1))


@dataclass(frozen=True)
class Calibration:
    """Mean score and share of right detections in bins of the score (Guo et al. 2017).

    `count`, `score` and `precision` are (B,), NaN where a bin is empty; `error` is the expected
    calibration error, the mean gap between the two weighted by `count`.
    """

    count: np.ndarray
    score: np.ndarray
    precision: np.ndarray
    error: float


def calibration(
    matches: Matches, threshold: float = _SAME, bins: int = 10, least: float = 0.0
) -> Calibration:
    """Compare scores with how often they are right, for detections of at least a score."""
    level = matches.level(threshold)
    chosen = ~matches.ignored[level] & (matches.score >= least)
    score, hits = matches.score[chosen], matches.found[level, chosen] >= 0
    place = np.minimum((score * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, score, bins) / count
        precision = np.bincount(place, hits, bins) / count
    gap = np.nansum(np.abs(mean - precision) * count)
    return Calibration(count, mean, precision, float(gap / max(count.sum(), 1)))


def empty_images(truth: Mapping[str, Any], class_ids: tuple[int, ...]) -> list[int]:
    """Images on which the labels promise that no object of the classes is."""
    occupied = {a["image_id"] for a in truth["annotations"] if a["category_id"] in class_ids}
    wanted = set(class_ids)
    return [
        im["id"]
        for im in truth["images"]
        if im["id"] not in occupied
        and im.get("exhaustive", 1) != 0
        and (im.get("labeled_cats") is None or wanted <= set(im["labeled_cats"]))
    ]


def false_alarms(
    matches: Matches, images: list[int], scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Detections in images without objects, from each score on.

    Returns
    -------
    total, affected : (K,) int
        Detections, and images with at least one.
    """
    inside = np.isin(matches.image, images)
    found, where = matches.score[inside], matches.image[inside]
    total = np.array([(found >= score).sum() for score in scores], int)
    affected = np.array([len(np.unique(where[found >= score])) for score in scores], int)
    return total, affected


def error_types(matches: Matches, score: float) -> dict[str, int]:
    """Right and wrong detections from a score on, by kind of error (after Bolya et al. 2020).

    Returns
    -------
    dict of str to int
        ``right`` and the keys of `ERRORS`.
    """
    level = matches.level(_SAME)
    chosen = ~matches.ignored[level] & (matches.score >= score)
    right = matches.found[level] >= 0
    own, other = matches.own_iou, matches.other_iou
    counts = {"right": int((chosen & right).sum())}
    left = chosen & ~right
    for name, test in (
        ("duplicate", own >= _SAME),
        ("class", other >= _SAME),
        ("place", own >= _NEAR),
        ("both", other >= _NEAR),
        ("background", np.ones(len(own), bool)),
    ):
        counts[name] = int((left & test).sum())
        left = left & ~test
    return counts


def missed_by_size(matches: Matches, score: float) -> dict[str, tuple[int, int]]:
    """Objects that no detection from a score on finds, and all objects, by COCO's size classes."""
    level = matches.level(_SAME)
    hits = matches.found[level][matches.score >= score]
    found = np.zeros(len(matches.annotations), bool)
    found[hits[hits >= 0]] = True
    counts = {}
    for name, low, high in SIZES:
        inside = matches.countable & (matches.area >= low) & (matches.area < high)
        counts[name] = (int((inside & ~found).sum()), int(inside.sum()))
    return counts


def image_quality(matches: Matches, score: float) -> dict[int, tuple[float, int]]:
    """Panoptic quality (Kirillov et al. 2019) of each image and how many mistakes it has.

    The sum of the IoUs of right detections over right + half of the wrong and the missed: F1 times
    the mean IoU. Images in which nothing is and nothing was found are left out.
    """
    level = matches.level(_SAME)
    quality = {}
    for image_id in matches.images:
        mine = (matches.image == image_id) & (matches.score >= score) & ~matches.ignored[level]
        hits = mine & (matches.found[level] >= 0)
        wrong = int(mine.sum() - hits.sum())
        total = int((matches.countable & (matches.truth_image == image_id)).sum())
        right = int(hits.sum())
        missed = total - right
        if right + wrong + missed:
            overlap = float(matches.overlap[level, hits].sum())
            quality[image_id] = overlap / (right + (wrong + missed) / 2), wrong + missed
    return quality
