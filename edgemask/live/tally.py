"""Counting what the engine does: how many frames, how fast, what went wrong."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from edgemask.live.result import Result

if TYPE_CHECKING:
    from edgemask.instances import Instances
    from edgemask.live.capture import Arrival
    from edgemask.live.governor import GovernorState

__all__ = ["Meter", "Tally"]


class Meter:
    """Rate and latency of the last results.

    Parameters
    ----------
    size : int
        Results that are looked at.
    """

    def __init__(self, size: int = 30) -> None:
        self._times: deque[float] = deque(maxlen=size)
        self._latencies: deque[float] = deque(maxlen=size)

    def add(self, now: float, latency_ms: float) -> None:
        """Take one result, `now` in seconds on a clock that never goes back."""
        self._times.append(now)
        self._latencies.append(latency_ms)

    def fps(self, now: float) -> float:
        """Return results per second. When none comes any more, it falls towards 0."""
        if len(self._times) < 2:
            return 0.0
        count = len(self._times) - 1
        span = self._times[-1] - self._times[0]
        overdue = now - self._times[-1] > 2 * span / count
        return count / max(span + (now - self._times[-1] if overdue else 0.0), 1e-9)

    @property
    def latency_ms(self) -> float | None:
        """Median of the last results; None before the first."""
        return statistics.median(self._latencies) if self._latencies else None


class Tally:
    """The figures of one engine: written by its inference thread, read by all.

    Attributes
    ----------
    frames, errors : int
        Frames that were segmented, and that the segmenter failed on.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.errors = 0
        self._last_error: str | None = None
        self._last: Result | None = None
        self._last_at: float | None = None
        self._born = time.monotonic()
        self._meter = Meter()
        self._latency_seconds = 0.0
        self._stage_seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def success(
        self,
        arrival: Arrival,
        instances: Instances,
        timings: dict[str, float],
        state: GovernorState,
    ) -> Result:
        """Count a frame that was segmented just now, and return its result."""
        now = time.monotonic()
        latency_ms = (now - arrival.at) * 1e3
        with self._lock:
            self._meter.add(now, latency_ms)
            self._last_at = now
            self._last = Result(
                frame=arrival.frame,
                instances=instances,
                timings=timings,
                latency_ms=latency_ms,
                fps=self._meter.fps(now),
                state=state,
                sequence=self.frames,
            )
            self.frames += 1
            self._latency_seconds += latency_ms * 1e-3
            for stage, value in timings.items():
                self._stage_seconds[stage] = self._stage_seconds.get(stage, 0.0) + value * 1e-3
            return self._last

    def failure(self, arrival: Arrival, error: Exception) -> None:
        """Count a frame that the segmenter failed on."""
        with self._lock:
            self.errors += 1
            self._last_error = f"{arrival.frame.name}: {str(error) or type(error).__name__}"

    def age(self) -> float | None:
        """Return the seconds since the last success; None before the first."""
        at = self._last_at
        return None if at is None else time.monotonic() - at

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, ready for :func:`json.dumps`; what is not known is None."""
        now, age = time.monotonic(), self.age()
        with self._lock:
            last, latency = self._last, self._meter.latency_ms
            return {
                "fps": round(self._meter.fps(now), 2),
                "latency_ms": None if latency is None else round(latency, 1),
                "timings_ms": {k: round(v, 2) for k, v in last.timings.items()} if last else {},
                "frames": self.frames,
                "errors": self.errors,
                "last_error": self._last_error,
                "last_frame_age_s": None if age is None else round(age, 2),
                "instances": None if last is None else len(last.instances),
                "uptime_s": round(now - self._born, 1),
                "totals": {
                    "latency_s": self._latency_seconds,
                    "stages_s": dict(self._stage_seconds),
                },
            }
