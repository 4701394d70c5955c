"""How much memory a process has had, and not the process that started it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edgemask.live.memory import peak_rss_mb

PROGRAM = "from edgemask.live.memory import peak_rss_mb; print(peak_rss_mb())"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_parent_does_not_count() -> None:
    """A child starts with the resident memory of its parent, until it runs its own program."""
    ballast = np.ones(300_000_000, np.uint8)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    own = peak_rss_mb()
    assert own is not None
    assert own > len(ballast) / 1e6
    assert 2 < float(done.stdout) < 200


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks for a heap of glibc")
def test_threads_share_a_heap() -> None:
    """In a process of its own, for it cannot be taken back: glibc counts the heaps there are."""
    program = """
import ctypes, threading
from edgemask.live.memory import share_heap

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
pages, together = set(), threading.Barrier(8)

def take():
    together.wait()
    pages.update((libc.malloc(n) or 0) >> 26 for n in (100, 1000, 10000))  # heaps of 64 MB
    together.wait()

print(share_heap())
threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(pages) <= 2)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    shared, few = done.stdout.split()
    assert shared == b"False" or few == b"True"  # no other C library has such heaps
