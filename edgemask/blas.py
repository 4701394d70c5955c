"""One thread for NumPy's matrix products while a frame is computed.

They are too small to share. OpenBLAS, which NumPy's wheels and Debian's packages have, shares them
all the same, and its threads wait for each other, spinning: that doubled the CPU time of a frame on
two idle cores. threadpoolctl can set the number too, but leaves it wrong when several threads of
Python do so at once.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import threading
from collections.abc import Callable
from types import TracebackType

__all__ = ["ONE_THREAD"]

_OPENMP = 2  # what openblas_get_parallel says; setting its number does not work before 0.3.34
_AFFIXES = tuple(itertools.product(("", "scipy_"), ("", "64_", "_64")))


class _OneThread:
    """A context manager for any number of Python threads; the last to leave restores what was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = [get() for get, _ in _libraries()]
                for _, put in _libraries():
                    put(1)
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for (_, put), number in zip(_libraries(), self._before, strict=True):
                    put(number)


@functools.cache
def _libraries() -> list[tuple[Callable[[], int], Callable[[int], object]]]:
    """Find what reads and what sets the number of threads of each OpenBLAS in this process.

    NumPy has been loaded by then, and its OpenBLAS with it. Systems without /proc have none.
    """
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            names = {line.split(maxsplit=5)[5].rstrip("\n") for line in maps if "/" in line}
    except OSError:
        return []
    found = []
    for name in sorted(n for n in names if "openblas" in n and ".so" in n):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue  # replaced on the disk since it was loaded
        for before, after in _AFFIXES:
            get = getattr(library, f"{before}openblas_get_num_threads{after}", None)
            put = getattr(library, f"{before}openblas_set_num_threads{after}", None)
            layer = getattr(library, f"{before}openblas_get_parallel{after}", None)
            if get and put and (layer is None or layer() != _OPENMP):
                found.append((get, put))
                break
    return found


ONE_THREAD = _OneThread()
"""``with ONE_THREAD:`` NumPy's OpenBLAS has one thread; the setting is the whole process's."""
