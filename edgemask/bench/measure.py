"""Timing frames: two clocks at every border between two steps, and statistics of them."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgemask.pipeline import Pipeline

__all__ = ["NETWORKS", "Clocks", "Samples", "percentile", "spread"]

#: The steps of a frame that the runtime executes; all others are NumPy and Pillow.
NETWORKS = ("backbone", "box_head", "mask_head", "keypoint_head")


class Clocks:
    """A clock for :class:`~edgemask.pipeline.Pipeline` that reads wall and CPU time at once.

    Attributes
    ----------
    readings : list of (float, float)
        Seconds of the wall clock, and of CPU used by all threads of this process.
    """

    def __init__(self) -> None:
        self.readings: list[tuple[float, float]] = []

    def __call__(self) -> float:
        """Read both; return the wall clock."""
        wall = time.perf_counter()
        self.readings.append((wall, time.process_time()))
        return wall

    def laps(self, names: Sequence[str]) -> dict[str, tuple[float, float]]:
        """Return (wall, CPU) milliseconds of each step of the frame that was read, and forget it.

        `names` are the steps in the order in which they ran; ``frame`` is added for all of them.
        """
        readings, self.readings = self.readings, []
        laps = {
            name: ((end[0] - start[0]) * 1e3, (end[1] - start[1]) * 1e3)
            for name, start, end in zip(names, readings, readings[1:], strict=False)
        }
        first, last = readings[0], readings[len(names)]
        return {**laps, "frame": ((last[0] - first[0]) * 1e3, (last[1] - first[1]) * 1e3)}


class Samples:
    """The times of many frames.

    Parameters
    ----------
    pipeline : Pipeline
        Made with `clocks`.
    clocks : Clocks
    short_side : int, optional
        Of the network's input, pixels; the pack's own by default.

    Attributes
    ----------
    wall, cpu : dict of str to array of float
        Milliseconds of each step, and of the whole ``frame``, in all frames that had it. Arrays,
        for the peak of the memory is measured too, and ten minutes are thousands of frames.
    """

    def __init__(self, pipeline: Pipeline, clocks: Clocks, short_side: int | None = None) -> None:
        self._pipeline, self._clocks, self._short_side = pipeline, clocks, short_side
        self.wall: dict[str, array[float]] = {"frame": array("d")}
        self.cpu: dict[str, array[float]] = {"frame": array("d")}

    def take(self, rgb: Any) -> int:
        """Run one frame; return the number of instances found."""
        found = len(self._pipeline(rgb, short_side=self._short_side))
        names = [name for name in self._pipeline.timings if name != "total"]
        for name, (wall, cpu) in self._clocks.laps(names).items():
            self.wall.setdefault(name, array("d")).append(wall)
            self.cpu.setdefault(name, array("d")).append(cpu)
        return found

    def until(self, rgb: Any, more: Callable[[int], bool]) -> Iterator[int]:
        """Run frames as long as ``more(frames so far)`` is true; yield their number after each."""
        while more(len(self.wall["frame"])):
            self.take(rgb)
            yield len(self.wall["frame"])

    def summary(self) -> dict[str, Any]:
        """Return wall and CPU statistics of the frame and of each step.

        Returns
        -------
        dict
            ``wall_ms`` and ``cpu_ms`` of the frame; ``stages``: a list of the steps in their order,
            each with ``name``, ``wall_ms``, ``cpu_ms`` and ``cpu_share``; and
            ``outside_networks``, the share of the CPU time that NumPy and Pillow take.
        """
        count = len(self.wall["frame"])
        means = {name: sum(cpu) / count for name, cpu in self.cpu.items() if name != "frame"}
        total = sum(means.values()) or 1.0
        stages = [
            {
                "name": name,
                "wall_ms": spread(self.wall[name]),
                "cpu_ms": spread(self.cpu[name]),
                "cpu_share": round(mean / total, 4),
            }
            for name, mean in means.items()
        ]
        outside = sum(mean for name, mean in means.items() if name not in NETWORKS)
        return {
            "frames": count,
            "wall_ms": spread(self.wall["frame"]),
            "cpu_ms": spread(self.cpu["frame"]),
            "stages": stages,
            "outside_networks": round(outside / total, 4),
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which so many per cent of the values lie, interpolated.

    Parameters
    ----------
    values : sequence of float
        One or more, in any order.
    percent : float
        0 to 100.
    """
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def spread(values: Sequence[float]) -> Mapping[str, float]:
    """Return the median (``p50``) and 95th percentile (``p95``) of milliseconds, rounded to µs."""
    return {"p50": round(percentile(values, 50), 3), "p95": round(percentile(values, 95), 3)}
