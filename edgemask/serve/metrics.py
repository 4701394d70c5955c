"""The engine's figures in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgemask import __version__
from edgemask.live.board import FLAGS

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STATES = ("starting", "running", "busy", "missing", "timeout", "failed", "ended", "stopped")

Sample = tuple[Mapping[str, str], float | None]


def exposition(status: Mapping[str, Any], processing: bool, readers: Mapping[str, int]) -> str:
    """Return all figures as text; what is not known is left out.

    Parameters
    ----------
    status : mapping
        :meth:`edgemask.live.engine.Engine.status`.
    processing : bool
    readers : mapping of str to int
        Connected readers by kind.
    """
    source, governor, totals = status["source"], status["governor"], status["totals"]
    model = status["model"] or {}
    labels = {
        "version": __version__,
        "model": f"{model.get('name', '')}",
        "model_version": f"{model.get('version', '')}",
        "board": status["board"] or "",
    }
    now = (status["throttled"] or {}).get("now", [])
    flags = FLAGS if status["throttled"] is not None else ()
    families: list[tuple[str, str, str, Iterable[Sample]]] = [
        ("edgemask_info", "gauge", "What runs here.", [(labels, 1)]),
        ("edgemask_processing", "gauge", "1 while frames are processed.", [({}, processing)]),
        ("edgemask_frames_total", "counter", "Frames segmented.", [({}, status["frames"])]),
        ("edgemask_frames_dropped_total", "counter", "Frames nobody took in time.",
         [({}, status["dropped"])]),
        ("edgemask_frame_errors_total", "counter", "Frames that failed.",
         [({}, status["errors"])]),
        ("edgemask_source_failures_total", "counter", "Failures of the source.",
         [({}, source["failures"])]),
        ("edgemask_source_state", "gauge", "1 for the state the source is in.",
         [({"state": state}, state == source["state"]) for state in _STATES]),
        ("edgemask_fps", "gauge", "Frames per second, recently.", [({}, status["fps"])]),
        ("edgemask_instances", "gauge", "Instances in the last frame.",
         [({}, status["instances"])]),
        ("edgemask_stage_seconds_total", "counter", "Time spent in each stage.",
         [({"stage": stage}, value) for stage, value in totals["stages_s"].items()]),
        ("edgemask_temperature_celsius", "gauge", "Temperature of the CPU.",
         [({}, status["temperature_c"])]),
        ("edgemask_throttled", "gauge", "1 for what the firmware reports now.",
         [({"flag": flag}, flag in now) for flag in flags]),
        ("edgemask_governor_level", "gauge", "Work taken away because of heat; 0 is none.",
         [({}, governor["level"])]),
        ("edgemask_readers", "gauge", "Connected readers.",
         [({"kind": kind}, count) for kind, count in readers.items()]),
        ("process_resident_memory_bytes", "gauge", "Memory of this process.",
         [({}, _resident_bytes())]),
    ]  # fmt: skip
    lines: list[str] = []
    for name, kind, text, samples in families:
        known = [(given, value) for given, value in samples if value is not None]
        if known:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{_labels(given)} {float(value):.10g}" for given, value in known]
    lines += [
        "# HELP edgemask_latency_seconds From the arrival of a frame to its result.",
        "# TYPE edgemask_latency_seconds summary",
        f"edgemask_latency_seconds_sum {totals['latency_s']:.10g}",
        f"edgemask_latency_seconds_count {status['frames']}",
    ]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    inner = ",".join(f'{key}="{escaped(value)}"' for key, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def _resident_bytes() -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
    except (OSError, StopIteration, ValueError):
        return None
