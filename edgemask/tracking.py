"""Tracking: recognising in a frame who was in the frames before, by the boxes alone.

Enough to say how long somebody has been somewhere; no appearance. A box is expected where it would
be had it moved on as before, and compared by generalised IoU (Rezatofighi et al. 2019), which,
unlike IoU, still tells near from far when boxes do not overlap: at one frame a second, somebody who
walks leaves their own box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgemask.boxes import Floats, area, as_boxes, overlap_and_union
from edgemask.instances import Instances

__all__ = ["FrameClock", "Tracker", "generalised_iou"]

_STALL_NS = 60_000_000_000
_USUAL_STEP_NS = 40_000_000

# In seconds. A velocity from two boxes is mostly their noise where frames come fast, so it is
# averaged over this time; and people do not go on for long as they did when they were last seen.
_AVERAGED = 0.2
_GOES_ON = 1.0


@dataclass(frozen=True, slots=True)
class _Track:
    """Where somebody was last seen, and how they moved.

    `velocity` is that of the box's centre, x y, in pixels a second, shape (2,).
    """

    box: Floats
    class_id: int
    seen_ns: int
    velocity: Floats

    def expected(self, now_ns: int) -> Floats:
        """Return the box, shape (4,), moved on; ever more slowly, to be at rest in the end."""
        seconds = (now_ns - self.seen_ns) * 1e-9
        seconds = _GOES_ON * -math.expm1(-seconds / _GOES_ON)
        return self.box + np.tile(self.velocity * np.float32(seconds), 2)

    def seen(self, box: Floats, now_ns: int) -> _Track:
        """Return the track after it was found in another frame."""
        velocity, seconds = self.velocity, (now_ns - self.seen_ns) * 1e-9
        if seconds > 0:
            move = (box[:2] + box[2:] - self.box[:2] - self.box[2:]) / np.float32(2 * seconds)
            velocity = velocity + (move - velocity) * np.float32(-math.expm1(-seconds / _AVERAGED))
        return replace(self, box=box, seen_ns=now_ns, velocity=velocity)


class Tracker:
    """Gives instances track ids, which stay the same from frame to frame.

    Parameters
    ----------
    max_lost_ns : int
        A track that was not found for longer is forgotten. Time without any frame does not count,
        up to a minute, or a slow board would forget everybody between two frames.
    min_similarity : float
        Least generalised IoU, -1 to 1, of a box and where the track is expected. With -0.4, two
        boxes of equal size may lie one and a third of their width apart.
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
        for n, k in self._pairs(found, classes, now_ns):
            ids[n] = known[k]
            self._tracks[known[k]] = self._tracks[known[k]].seen(found[n], now_ns)
        for n, number in enumerate(ids):
            if not number:
                ids[n], self._next = self._next, self._next + 1
                rest = np.zeros(2, np.float32)
                self._tracks[ids[n]] = _Track(found[n], int(classes[n]), now_ns, rest)
        self._forget(now_ns - self._max_lost_ns)
        return ids

    def _forget(self, before_ns: int) -> None:
        """Drop the tracks that were last seen before a time."""
        self._tracks = {n: t for n, t in self._tracks.items() if t.seen_ns >= before_ns}

    def _pairs(
        self, boxes: Floats, classes: NDArray[np.int64], now_ns: int
    ) -> list[tuple[int, int]]:
        """Match boxes with tracks, both by their place in order."""
        tracks = list(self._tracks.values())
        if not len(boxes) or not tracks:
            return []
        expected = np.array([track.expected(now_ns) for track in tracks])
        likeness = generalised_iou(boxes, expected)
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
    none, or where it jumps because the source was opened again, the time of arrival counts.
    Never the time of day: a board without a battery clock jumps by years when it gets the time.

    Parameters
    ----------
    live : bool
        Whether frames arrive when they are taken, so that a minute more than since the last one
        arrived is a jump. In a film it may be a pause; and where files have no times at all, each
        is a 25th of a second, so that the result does not depend on how fast they are read.
    """

    def __init__(self, live: bool = True) -> None:
        self._live = live
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
            if not self._live and sensor_ns is None:
                step = _USUAL_STEP_NS
            elapsed = max(0, arrival_ns - arrived)
            jumped = step < 0 or (self._live and step > elapsed + _STALL_NS)
            self._now += elapsed if jumped else step
        self._last = sensor_ns, arrival_ns
        return self._now
