"""What a trained network says about photographs, kept for a narrower one to learn.

A photograph is looked at twice, as it is and mirrored. What both views say about a region is
averaged: on 80 classes that is a better teacher than either. Nothing needs a label.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask import boxes as bx
from edgemask.anchors import anchors_of
from edgemask.geometry import InputSize, fit_input, resize
from edgemask.nms import batched_nms
from edgemask.pipeline import Pipeline
from edgemask.postprocess import proposals
from edgemask.quant import dequantize, sigmoid, softmax

from ..teach.views import mirror_boxes

CELL = 16  # pixels of the network's input
PROPOSALS = 90  # of a view
BEST, OTHERS = 32, 10  # of those: the best, and some of the rest
JITTER = 0.12  # of a side, by which corners are moved
JITTERED = 0.25  # of the regions
CLASSES = 3  # of a region: the likeliest, of which the boxes are kept
DOUBTFUL = 0.05  # a detection with a lower score teaches no proposal
MASKED = 0.1  # and one with a lower one no mask
MASKS = 14  # of a photograph

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]


@dataclass(frozen=True)
class Lesson:
    """One view of a photograph. N regions, K objects, C classes.

    Attributes
    ----------
    features : (1, h, w, 128) float16
    objectness : (h, w, A) float16
        Of each anchor, 0 to 1: the mean of what the RPN thinks and of how well its box fits
        something that the box head is sure of.
    rpn_deltas : (h, w, A, 4) float16
    regions : (N, S, S, 128) float16
        As the device's pipeline pools them.
    probabilities : (N, 1 + C) float16
        The background first.
    columns : (N, 3) int32
        The likeliest classes, without the background.
    deltas : (N, 3, 4) float16
        That turn the regions into the boxes of those classes.
    mask_regions : (K, S, S, 128) float16
    mask_columns : (K,) int32
    masks : (K, 4 S, 4 S) float16
        In [0, 1].
    """

    features: Halves
    objectness: Halves
    rpn_deltas: Halves
    regions: Halves
    probabilities: Halves
    columns: NDArray[np.int32]
    deltas: Halves
    mask_regions: Halves
    mask_columns: NDArray[np.int32]
    masks: Halves


class LessonError(ValueError):
    """The network cannot teach."""


class _View:
    """A photograph, or its mirror image; all boxes are those of the photograph."""

    def __init__(self, teacher: Pipeline, rgb: NDArray[np.uint8], mirrored: bool) -> None:
        self.teacher = teacher
        self.mirrored = mirrored
        self.size = (rgb.shape[0], rgb.shape[1])
        image = np.ascontiguousarray(rgb[:, ::-1]) if mirrored else rgb
        first = teacher.stages["backbone"]
        found = first.run(image=teacher.encode_image(image))
        self.outputs = {name: value.copy() for name, value in found.items()}  # the runtime's memory

    def values(self, name: str) -> Floats:
        """An output of the first stage as real numbers."""
        return dequantize(self.outputs[name], *self.teacher.stages["backbone"].quantization(name))

    def turned(self, boxes: Floats) -> Floats:
        """Boxes of the photograph in this view, and back."""
        flat = boxes.reshape(-1, 4)
        return mirror_boxes(flat, self.size[1]).reshape(boxes.shape) if self.mirrored else boxes

    def propose(self, count: int) -> Floats:
        """Boxes (N, 4), best first."""
        settings = {**self.teacher.manifest["rpn"], "post_nms": count}
        code = self.teacher.stages["backbone"].quantization
        return self.turned(proposals(self.outputs, code, settings, *self.size))

    def pool(self, boxes: Floats, head: str, exact: bool = False) -> Any:
        """Features of boxes; `exact` as the network was trained: corner pixels, a cell or more."""
        own = self.turned(boxes)
        if exact:
            low = own[:, :2] + 1
            own = np.concatenate([low, np.maximum(own[:, 2:], low + CELL)], 1)
        return self.teacher.pool(self.outputs, own, head)

    def classify(self, boxes: Floats) -> tuple[Floats, Floats]:
        """Probabilities (N, 1 + C) and boxes (N, C, 4)."""
        head = self.teacher.stages["box_head"]
        raw = head.run(rois=self.pool(boxes, "box", exact=True))
        logits, deltas = (dequantize(raw[k], *head.quantization(k)) for k in ("logits", "deltas"))
        count = logits.shape[1] - 1
        own = np.repeat(self.turned(boxes), count, 0)
        weights = self.teacher.manifest["detections"]["box_weights"]
        refined = bx.decode(deltas.reshape(-1, 4), own, weights).reshape(-1, count, 4)
        return softmax(logits), self.turned(refined)

    def masks(self, boxes: Floats, columns: NDArray[np.int32]) -> Floats:
        """Probabilities (N, S, S) inside of boxes of the photograph."""
        head = self.teacher.stages["mask_head"]
        raw = head.run(rois=self.pool(boxes, "mask", exact=True))["logits"]
        logits = raw[np.arange(len(columns)), :, :, columns]
        found = sigmoid(dequantize(logits, *head.quantization("logits")))
        return found[:, :, ::-1] if self.mirrored else found

    def student_regions(self, boxes: Floats, head: str) -> Halves:
        """What the device pools for `head`, as real numbers."""
        code = self.teacher.stages[f"{head}_head"].quantization("rois")
        return dequantize(self.pool(boxes, head), *code).astype(np.float16)


def lessons(
    teacher: Pipeline, images: Iterable[NDArray[np.uint8]], seed: int = 0
) -> Iterable[Lesson]:
    """Look at photographs, each as it is and mirrored.

    Parameters
    ----------
    teacher : Pipeline
        A network of the kind ``maskrcnn2go``; as an int8 pack it is many times faster.
    images : iterable of uint8 (H, W, 3)
    seed : int
        Of the choice of regions.

    Yields
    ------
    Lesson
        Two for each photograph in which something may be.

    Raises
    ------
    LessonError
        The network has a pyramid, or one box for all classes.
    """
    manifest = teacher.manifest
    softmaxed = manifest["detections"].get("activation") == "softmax"
    if not softmaxed or manifest["roi"]["strides"] != [CELL]:
        raise LessonError(
            "only a network of the kind maskrcnn2go teaches its parts one by one; for others, "
            "train with --distill"
        )
    spec = manifest["input"]
    random = np.random.default_rng(seed)
    for rgb in images:
        size = fit_input(*rgb.shape[:2], spec["short_side"], spec["stride"], spec["max_aspect"])
        yield from _look(teacher, resize(rgb, size), size, random)


def _look(
    teacher: Pipeline, rgb: NDArray[np.uint8], size: InputSize, random: np.random.Generator
) -> Iterable[Lesson]:
    views = [_View(teacher, rgb, mirrored) for mirrored in (False, True)]
    rois = np.concatenate([_sample(view.propose(PROPOSALS), random) for view in views])
    rois = _moved(rois, *size.network, random)
    if len(rois) < 2:
        return
    seen = [view.classify(rois) for view in views]
    probabilities, refined = ((a + b) / 2 for a, b in zip(*seen, strict=True))
    boxes, scores, columns = _objects(probabilities, refined, size)
    sure = np.flatnonzero((scores >= MASKED) & (boxes[:, 2:] - boxes[:, :2] >= 4).all(1))[:MASKS]
    objects, kinds = boxes[sure], columns[sure]
    side = teacher.manifest["mask"]["size"]
    masks = np.zeros((0, side, side), np.float32)
    if len(sure):
        first, second = (view.masks(objects, kinds) for view in views)
        masks = (first + second) / 2
    best = np.argsort(-probabilities[:, 1:], 1, kind="stable")[:, :CLASSES]
    refined = np.take_along_axis(refined, best[:, :, None], 1)
    for view in views:
        own = np.arange(len(rois)) % 2 == view.mirrored
        yield Lesson(
            view.values("c4").astype(np.float16),
            *_rpn_lesson(view, boxes, scores),
            view.student_regions(rois[own], "box"),
            probabilities[own].astype(np.float16),
            best[own].astype(np.int32),
            _encoded(view.turned(refined[own]), view.turned(rois[own]), teacher),
            view.student_regions(objects, "mask"),
            kinds,
            (masks[:, :, ::-1] if view.mirrored else masks).astype(np.float16),
        )


def _sample(boxes: Floats, random: np.random.Generator) -> Floats:
    """The best proposals, and some others."""
    rest = boxes[BEST:]
    chosen = random.choice(len(rest), min(OTHERS, len(rest)), replace=False)
    return np.concatenate([boxes[:BEST], rest[chosen]])


def _moved(boxes: Floats, height: int, width: int, random: np.random.Generator) -> Floats:
    """Some of the boxes with their corners moved; those that lie outside are gone."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    shift = random.uniform(-JITTER, JITTER, boxes.shape) * sides
    moved = boxes + shift * (random.random(len(boxes)) < JITTERED)[:, None]
    moved = bx.clip(moved, height, width)
    return moved[(moved[:, 2:] - moved[:, :2] >= 2).all(1)]


def _objects(
    probabilities: Floats, refined: Floats, size: InputSize
) -> tuple[Floats, Floats, NDArray[np.int32]]:
    """Boxes, scores and columns of what both views together find, best first."""
    roi, column = np.nonzero(probabilities[:, 1:] >= DOUBTFUL)
    boxes, scores = bx.clip(refined[roi, column], *size.network), probabilities[roi, column + 1]
    kept = batched_nms(boxes, scores, column, 0.5, max_output=60)
    return boxes[kept], scores[kept], column[kept].astype(np.int32)


def _rpn_lesson(view: _View, boxes: Floats, scores: Floats) -> tuple[Halves, Halves]:
    """Objectness and deltas of every anchor; `boxes` with `scores` are the objects."""
    settings = view.teacher.manifest["rpn"]
    (level,) = settings["levels"]
    belief = sigmoid(view.values(f"rpn_logits_{level}"))[0]
    deltas = view.values(f"rpn_deltas_{level}").reshape(-1, 4)
    anchors = anchors_of(settings, [belief.shape[:2]])
    own = bx.clip(bx.decode(deltas, anchors, settings["box_weights"]), *view.size)
    fit = np.clip((bx.iou_matrix(own, view.turned(boxes)) - 0.3) / 0.5, 0, 1)
    verdict = (np.sqrt(scores) * fit).max(1, initial=0).reshape(belief.shape)
    objectness = (belief + verdict) / 2
    return objectness.astype(np.float16), deltas.reshape(*belief.shape, 4).astype(np.float16)


def _encoded(boxes: Floats, rois: Floats, teacher: Pipeline) -> Halves:
    """Deltas (N, K, 4) from `rois` (N, 4) to `boxes` (N, K, 4)."""
    count = boxes.shape[1]
    high = np.maximum(boxes[..., 2:], boxes[..., :2] + 0.5)
    wanted = np.concatenate([boxes[..., :2], high], -1).reshape(-1, 4)
    weights = teacher.manifest["detections"]["box_weights"]
    deltas = bx.encode(wanted, np.repeat(rois, count, 0), weights)
    return deltas.reshape(-1, count, 4).astype(np.float16)
