"""What this process takes of the board's memory."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["peak_rss_mb", "share_heap"]

_M_ARENA_MAX = -8  # of mallopt(3)


def share_heap() -> bool:
    """Let all threads take memory from one heap; return whether the C library can (glibc).

    It would give each thread one of its own, and keep in each what a frame needed once: 8 MB of
    126 for a camera that two threads segment. Two frames at a time are no slower by it
    (68 to 77 a second on two cores, 72 to 77 without). To be called before the threads start.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1))
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False


def peak_rss_mb() -> float | None:
    """Return the most memory this process has had resident, in MB; None where unknown.

    ``VmHWM`` belongs to this program alone. ``ru_maxrss``, which other systems have too, starts
    with the peak of the process that started it.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("VmHWM:"):
                    return round(int(line.split()[1]) * 1024 / 1e6, 1)
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)
