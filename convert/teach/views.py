"""Looking at an image several times: at several sizes, mirrored, and fusing what was seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemask import boxes as bx

from .protocol import Floats, SoftInstances

__all__ = ["Found", "View", "ViewTeacher", "fuse_boxes", "mirror_boxes", "size_weights"]

FUSION_IOU = 0.55  # as in the paper of weighted boxes fusion
LEAST_WEIGHT = 0.05  # of the best view's: a view that counts less is not worth its time


class Found(NamedTuple):
    """Boxes of one view, best first, in pixels of the image.

    Attributes
    ----------
    boxes : ndarray of float32, shape (N, 4)
    scores : ndarray of float32, shape (N,)
    class_ids : ndarray of int32, shape (N,)
    """

    boxes: Floats
    scores: Floats
    class_ids: NDArray[np.int32]


class View(Protocol):
    """One image at one size, its features computed once."""

    def detect(self) -> Found:
        """Find boxes."""
        ...

    def masks(self, boxes: Floats, class_ids: NDArray[np.int32]) -> Floats:
        """Segment in given boxes, N ≥ 1: float32 (N, S, S)."""
        ...


def mirror_boxes(boxes: Floats, width: int) -> Floats:
    """Return the boxes in the mirrored image, `width` pixels wide."""
    mirrored = boxes.copy()
    mirrored[:, 0], mirrored[:, 2] = width - boxes[:, 2], width - boxes[:, 0]
    return mirrored


def size_weights(boxes: Floats, scales: Sequence[float], best: float, spread: float) -> Floats:
    """Return how much each view counts for each box, by the size it has in that view.

    A network without a feature pyramid is good at one size of object. The weight is a Gaussian of
    the logarithm of the size, relative to the view that suits the box best.

    Parameters
    ----------
    boxes : ndarray of float32, shape (N, 4), in pixels of the image
    scales : sequence of float, V pixels of a view per pixel of the image
    best : float
        Best size, sqrt(width * height), in pixels of a view.
    spread : float
        Standard deviation of the natural logarithm.

    Returns
    -------
    ndarray of float32, shape (V, N)
        In [0, 1], 1 for each box's best view; 0 below `LEAST_WEIGHT`.
    """
    sizes = np.sqrt(np.maximum(bx.area(boxes), np.float32(1)))
    seen = np.asarray(scales, np.float32)[:, None] * sizes
    distance = np.square(np.log(seen / np.float32(best)) / np.float32(spread)) / np.float32(2)
    weights = np.exp(distance.min(axis=0, initial=np.inf) - distance)
    return np.where(weights < LEAST_WEIGHT, 0, weights).astype(np.float32)


def fuse_boxes(
    views: Sequence[Found],
    iou_threshold: float = FUSION_IOU,
    weigh: Callable[[Floats], Floats] | None = None,
) -> Found:
    """Weighted boxes fusion (Solovyev, Wang and Gabruseva 2021), with a weight per view and box.

    Going down by score times weight, a box joins the fused box of its class that it overlaps
    most, if their IoU exceeds the threshold, or starts a new one. A fused box is the mean of its
    members, weighted by score times weight; its score is the weighted mean of theirs, where a
    view that has not seen it counts as 0.

    Parameters
    ----------
    views : sequence of Found
    iou_threshold : float
    weigh : callable, optional
        Boxes (N, 4) → weights (views, N), not all 0 for a box; all 1 by default.

    Returns
    -------
    Found
        Best first. One view comes back unchanged.
    """
    if len(views) == 1:
        return views[0]
    boxes = np.concatenate([v.boxes for v in views])
    scores = np.concatenate([v.scores for v in views])
    classes = np.concatenate([v.class_ids for v in views])
    origin = np.repeat(np.arange(len(views)), [len(v.boxes) for v in views])
    weigh = weigh or (lambda b: np.ones((len(views), len(b)), np.float32))
    weights = weigh(boxes)[origin, np.arange(len(boxes))]
    order = np.argsort(-scores * weights, kind="stable")
    order = order[(weights[order] > 0) & (scores[order] > 0)]
    fused = np.empty((len(order), 4), np.float32)
    sums = np.zeros_like(fused)
    belief = np.zeros(len(order), np.float32)  # sum of score times weight
    weight = np.zeros(len(order), np.float32)
    owner = np.empty(len(order), np.int32)
    count = 0
    for n in order.tolist():
        overlap = bx.iou_matrix(boxes[n, None], fused[:count])[0] * (owner[:count] == classes[n])
        best = int(overlap.argmax()) if count else -1
        if best < 0 or overlap[best] <= iou_threshold:
            best, count = count, count + 1
            owner[best] = classes[n]
        share = scores[n] * weights[n]
        sums[best] += share * boxes[n]
        belief[best] += share
        weight[best] += weights[n]
        fused[best] = sums[best] / belief[best]
    fused = fused[:count]
    total = belief[:count] / np.maximum(weight[:count], weigh(fused).sum(axis=0))
    ranked = np.argsort(-total, kind="stable")
    return Found(fused[ranked], total[ranked], owner[ranked])


class ViewTeacher:
    """A teacher that looks at each image through one or more views.

    Parameters
    ----------
    name : str
    categories : mapping of int to str
    open_view : callable
        RGB image (H, W, 3) uint8 and short side → :class:`View`.
    short_sides : sequence of int
        One view per size.
    flip : bool
        Also look at the mirrored image at each size.
    best_size : float, optional
        Size of the objects, in pixels of a view, that the network is best at; None counts all
        views alike. See :func:`size_weights`.
    size_spread : float
    max_instances : int
        At most this many per image, the best.

    Notes
    -----
    Boxes are fused by :func:`fuse_boxes`; the fused boxes are given to the mask head of every
    view, and the weighted mean of the masks is taken.
    """

    def __init__(
        self,
        name: str,
        categories: Mapping[int, str],
        open_view: Callable[[NDArray[np.uint8], int], View],
        short_sides: Sequence[int],
        flip: bool = False,
        best_size: float | None = None,
        size_spread: float = 0.5,
        max_instances: int = 100,
    ) -> None:
        self.name = name
        self.categories = categories
        self._open = open_view
        self._views = [
            (side, mirrored) for side in short_sides for mirrored in (False, True)[: 1 + flip]
        ]
        self._best_size, self._spread = best_size, size_spread
        self._limit = max_instances
        self._image: NDArray[np.uint8] | None = None
        self._opened: dict[tuple[int, bool], View] = {}

    def label(self, image: NDArray[np.uint8]) -> SoftInstances:
        """See :meth:`.protocol.Teacher.label`."""
        found = []
        for key in self._views:
            seen = self._view(image, key).detect()
            if key[1]:
                seen = seen._replace(boxes=mirror_boxes(seen.boxes, image.shape[1]))
            found.append(seen)
        fused = fuse_boxes(found, weigh=lambda boxes: self._weights(image, boxes))
        boxes, scores, class_ids = (part[: self._limit] for part in fused)
        if not len(boxes):
            return SoftInstances.empty()
        boxes = bx.clip(boxes, *image.shape[:2])
        return SoftInstances(boxes, scores, class_ids, self.segment(image, boxes, class_ids))

    def segment(
        self, image: NDArray[np.uint8], boxes: Floats, class_ids: NDArray[np.int32]
    ) -> Floats:
        """See :meth:`.protocol.Teacher.segment`."""
        weights = self._weights(image, boxes)
        weights /= weights.sum(axis=0)
        total: Floats | None = None
        for key, weight in zip(self._views, weights, strict=True):
            chosen = np.flatnonzero(weight)
            if not len(chosen):
                continue
            asked = boxes[chosen]
            if key[1]:
                asked = mirror_boxes(asked, image.shape[1])
            masks = self._view(image, key).masks(asked, class_ids[chosen])
            masks = masks[:, :, ::-1] if key[1] else masks
            if total is None:
                total = np.zeros((len(boxes), *masks.shape[1:]), np.float32)
            total[chosen] += weight[chosen, None, None] * masks
        assert total is not None  # every box has a view
        return np.clip(total, 0, 1)

    def _weights(self, image: NDArray[np.uint8], boxes: Floats) -> Floats:
        """Weights (views, N) of boxes (N, 4)."""
        if self._best_size is None:
            return np.ones((len(self._views), len(boxes)), np.float32)
        scales = [side / min(image.shape[:2]) for side, _ in self._views]
        return size_weights(boxes, scales, self._best_size, self._spread)

    def _view(self, image: NDArray[np.uint8], key: tuple[int, bool]) -> View:
        """Open a view, or take it from before: one image's features serve both methods."""
        if self._image is not image:
            self._image, self._opened = image, {}
        if key not in self._opened:
            side, mirrored = key
            seen = np.ascontiguousarray(image[:, ::-1]) if mirrored else image
            self._opened[key] = self._open(seen, side)
        return self._opened[key]
