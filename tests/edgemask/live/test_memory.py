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
