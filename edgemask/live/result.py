"""What the engine says about one frame, and to whom."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgemask.live.governor import GovernorState
from edgemask.live.mailbox import Mailbox

if TYPE_CHECKING:
    from edgemask.instances import Instances
    from edgemask.sources import Frame

__all__ = ["Result", "Subscription", "summary"]


@dataclass(frozen=True, slots=True)
class Result:
    """One segmented frame.

    Attributes
    ----------
    frame : Frame
    instances : Instances
    timings : dict of str to float
        Milliseconds per stage of the segmenter.
    latency_ms : float
        From the arrival of the frame to this result.
    fps : float
        Results per second, recently.
    state : GovernorState
        What the governor allowed for this frame.
    sequence : int
        0, 1, 2… of this engine's results. `frame.index` starts again when a source is reopened,
        this does not.
    prepared : object
        What the reader's own `prepare` made of frame and instances; None without one.
    """

    frame: Frame
    instances: Instances
    timings: dict[str, float]
    latency_ms: float
    fps: float
    state: GovernorState
    sequence: int
    prepared: Any = None


class Subscription(Mailbox[Result]):
    """The results of an engine, for one reader: iterate, or :meth:`get` with a timeout.

    It ends when the engine does. A reader that is slower than the engine misses the oldest
    results, and `dropped` counts them.

    Parameters
    ----------
    maxsize : int
    prepare : callable
        See :meth:`edgemask.live.engine.Engine.subscribe`.
    cancel : callable
        Called with this when it is closed.
    """

    def __init__(
        self,
        maxsize: int,
        prepare: Callable[[Frame, Instances], Any],
        cancel: Callable[[Subscription], None],
    ) -> None:
        super().__init__(maxsize)
        self.prepare = prepare
        self._cancel = cancel

    def close(self) -> None:
        """Want no more results."""
        super().close()
        self._cancel(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def summary(result: Result) -> dict[str, Any]:
    """Return a result without masks and image, ready for :func:`json.dumps`.

    Returns
    -------
    dict
        ``sequence``, ``index``, ``name``, ``wall_ns``, ``sensor_ns``, ``size`` (H, W), ``fps``,
        ``latency_ms`` and ``instances``: ``class_id``, ``class_name``, ``score``, ``track_id``
        (None if none), ``box`` (x0 y0 x1 y1, pixels), ``area`` (pixels), ``centroid`` (x y) and, if
        the model has them, ``keypoints`` (17 of [x, y, score]).
    """
    found = result.instances
    joints: list[Any] = [None] * len(found)
    if found.keypoints is not None:
        joints = found.keypoints.tolist()
    columns = zip(
        found.class_ids.tolist(),
        found.class_names,
        found.scores.tolist(),
        found.track_ids.tolist(),
        found.boxes.tolist(),
        found.masks.areas.tolist(),
        found.masks.centroids.tolist(),
        joints,
        strict=True,
    )
    return {
        "sequence": result.sequence,
        "index": result.frame.index,
        "name": result.frame.name,
        "wall_ns": result.frame.wall_ns,
        "sensor_ns": result.frame.sensor_ns,
        "size": list(found.size),
        "fps": round(result.fps, 2),
        "latency_ms": round(result.latency_ms, 1),
        "instances": [
            {
                "class_id": class_id,
                "class_name": name,
                "score": round(score, 4),
                "track_id": track if track >= 0 else None,
                "box": [round(value, 1) for value in box],
                "area": area,
                # An empty mask has no centre, and JSON has no NaN.
                "centroid": [round(v, 1) if math.isfinite(v) else None for v in centroid],
                **(
                    {"keypoints": [[round(x, 1), round(y, 1), round(s, 3)] for x, y, s in points]}
                    if points is not None
                    else {}
                ),
            }
            for class_id, name, score, track, box, area, centroid, points in columns
        ],
    }
