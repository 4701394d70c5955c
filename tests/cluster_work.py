"""What the workers of the cluster in test_cluster.py run: they import it by this name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from edgemask.errors import SourceError


def make_square() -> Callable[[int], int]:
    return lambda x: x * x


def make_slow_pid() -> Callable[[int], int]:
    def work(x: int) -> int:
        time.sleep(0.3)
        return os.getpid()

    return work


def make_fragile(folder: str, deaths: int) -> Callable[[int], int]:
    """Make a function that kills its process the first times it gets a 3."""

    def work(x: int) -> int:
        if x == 3:
            before = len(list(Path(folder).iterdir()))
            if before < deaths:
                (Path(folder) / str(before)).touch()
                os._exit(1)
        return x * x

    return work


def make_raising() -> Callable[[int], int]:
    def work(x: int) -> int:
        if x == 2:
            raise SourceError("photo 2 is damaged")
        return x

    return work


def make_nothing() -> Callable[[int], int]:
    raise ModuleNotFoundError("no weights here")
