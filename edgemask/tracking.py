"""Tracking: recognising in a frame who was in the frames before, by the boxes alone.

Enough to say how long somebody has been somewhere; no appearance, no motion model. Boxes are
compared by generalised IoU (Rezatofighi et al. 2019), which unlike IoU still tells near from far
when they do not overlap: at one frame a second, somebody who walks leaves their own box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgemask.boxes import Floats, area, as_boxes, overlap_and_union
from edgemask.instances import Instances

__all__ = ["FrameClock", "Tracker", "generalised_iou"]

_STALL_NS = 60_000_000_000


@dataclass(slots=True)
class _Track:
    box: Floats
    class_id: int
    seen_ns: int


class Tracker:
    """Gives instances track ids, which stay the same from frame to frame.

    Parameters
    ----------
    max_lost_ns : int
        A track that was not found for longer is forgotten. Time without any frame does not count,
        up to a minute, or a slow board would forget everybody between two frames.
    min_similarity : float
        Least generalised IoU of the same one in two frames, -1 to 1. With -0.4, two boxes of equal
        size may lie one and a third of their width apart.
    """

    def __init__(self, max_lost_ns: int = 2_000_000_000, min_similarity: float = -0.4) -> None:
        self._max_lost_ns = max_lost_ns
        self._min_similarity = min_similarity
        self._tracks: dict[int, _Track] = {}
        self._next = 1

    def update(self, instances: Instances, now_ns: int) -> Instances:
        """Return the instances with their ``track_ids`` set.

        Parameters
        ----------
        instances : Instances
            Of the next frame.
        now_ns : int
            Time of the frame in nanoseconds, for instance its ``sensor_ns``; not before that of the
            last one.

        Returns
        -------
        Instances
            The same boxes, masks and keypoints, not copied.
        """
        return Instances(
            instances.boxes, instances.scores, instances.class_ids, instances.masks,
            instances.class_names, keypoints=instances.keypoints,
            track_ids=self.match(now_ns, instances.boxes, instances.class_ids),
        )  # fmt: skip

    def match(self, now_ns: int, boxes: ArrayLike, class_ids: ArrayLike) -> list[int]:
        """Return the track of each box of the next frame; the most alike pair is matched first.

        Parameters
        ----------
        now_ns : int
            Time of the frame; not before that of the last one.
        boxes : array_like, shape (N, 4)
        class_ids : array_like of int, shape (N,)
            A track keeps its class.

        Returns
        -------
        list of int
            N different numbers from 1.
        """
        found, classes = as_boxes(boxes), np.asarray(class_ids, dtype=np.int64).reshape(-1)
        self._forget(now_ns - max(self._max_lost_ns, _STALL_NS))
        known = list(self._tracks)
        ids = [0] * len(found)
        for n, k in self._pairs(found, classes, [self._tracks[number] for number in known]):
            ids[n] = known[k]
        for n, number in enumerate(ids):
            if not number:
                ids[n], self._next = self._next, self._next + 1
            self._tracks[ids[n]] = _Track(found[n], int(classes[n]), now_ns)
        self._forget(now_ns - self._max_lost_ns)
        return ids

    def _forget(self, before_ns: int) -> None:
        """Drop the tracks that were last seen before a time."""
        self._tracks = {n: t for n, t in self._tracks.items() if t.seen_ns >= before_ns}

    def _pairs(
        self, boxes: Floats, classes: NDArray[np.int64], tracks: list[_Track]
    ) -> list[tuple[int, int]]:
        if not len(boxes) or not tracks:
            return []
        likeness = generalised_iou(boxes, np.array([track.box for track in tracks]))
        likeness[classes[:, None] != np.array([track.class_id for track in tracks])] = -math.inf
        pairs = []
        for _ in range(min(likeness.shape)):
            n, k = divmod(int(np.argmax(likeness)), len(tracks))
            if likeness[n, k] < self._min_similarity:
                break
            pairs.append((n, k))
            likeness[n, :] = likeness[:, k] = -math.inf
        return pairs


def generalised_iou(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return IoU minus the share of the common hull that neither box covers, (N, M) in [-1, 1]."""
    first, second = as_boxes(a, "a"), as_boxes(b, "b")
    overlap, union = overlap_and_union(first.T, area(first), second.T, area(second))
    low = np.minimum(first[:, None, :2], second[:, :2])
    high = np.maximum(first[:, None, 2:], second[:, 2:])
    hull: Floats = np.prod(high - low, axis=2, dtype=np.float32)
    iou = np.divide(overlap, union, out=np.zeros_like(union), where=union > 0)
    bare = np.divide(hull - union, hull, out=np.zeros_like(hull), where=hull > 0)
    result: Floats = iou - bare
    return result


class FrameClock:
    """A clock for the frames of a source that never goes back.

    The camera's own clock is best: it has no jitter, and a film has its own time. Where there is
    none, or where it jumps back because the source was opened again, the time of arrival counts.
    Never the time of day: a board without a battery clock jumps by years when it gets the time.
    """

    def __init__(self) -> None:
        self._now = 0
        self._last: tuple[int | None, int] | None = None

    def __call__(self, sensor_ns: int | None, arrival_ns: int) -> int:
        """Return the time of a frame in nanoseconds; the first has 0.

        Parameters
        ----------
        sensor_ns : int or None
        arrival_ns : int
            On a clock that never goes back, such as :func:`time.monotonic_ns`.
        """
        if self._last is not None:
            before, arrived = self._last
            step = -1 if sensor_ns is None or before is None else sensor_ns - before
            self._now += step if step >= 0 else max(0, arrival_ns - arrived)
        self._last = sensor_ns, arrival_ns
        return self._now
