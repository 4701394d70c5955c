"""The record of a benchmark: what was measured, on what. This is what ``--json`` writes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Sequence
from typing import Any

from edgemask import __version__
from edgemask.interpreter import default_threads
from edgemask.live.board import Board, read_board

__all__ = ["SCHEMA", "describe_system", "make_record"]

SCHEMA = "edgemask.bench/1"
_PACKAGES = ("numpy", "pillow", "ai-edge-litert", "tflite-runtime")


def describe_system(board: Board | None = None) -> dict[str, Any]:
    """Return what the times depend on, as far as this system tells.

    Parameters
    ----------
    board : Board, optional
        Read here by default.
    """
    board = read_board() if board is None else board
    total = board.memory_total
    return {
        "board": board.model or platform.processor() or platform.machine(),
        "os": _os_name(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": default_threads(),
        "memory_mb": None if total is None else round(total / 1e6),
        "governor": board.cpu_governor,
        "throttled_since_boot": list(board.throttled.since_boot) if board.throttled else None,
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def make_record(runs: Sequence[dict[str, Any]], system: dict[str, Any]) -> dict[str, Any]:
    """Return the whole record.

    Returns
    -------
    dict
        ``schema``, ``edgemask`` (version), ``time`` (UTC, ISO 8601), ``load_average``, ``system``
        and ``runs``. Times are milliseconds, ``{"p50": …, "p95": …}``; ``wall_ms`` is what a user
        waits, ``cpu_ms`` what all threads of the process used. What a system does not tell is null.
    """
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "schema": SCHEMA,
        "edgemask": __version__,
        "time": now,
        "load_average": _load_average(),
        "system": system,
        "runs": list(runs),
    }


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _load_average() -> float | None:
    """Return how many processes wanted a CPU in the last minute: above the CPUs, times are off."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None
