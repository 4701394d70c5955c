"""The streams of a program: terminals without a size, and streams that are closed or full."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO

__all__ = ["bar_options", "give_up_stdout", "have_stderr"]

_COLUMNS = 79  # of a terminal that does not know its width


def bar_options(stream: TextIO) -> dict[str, Any]:
    """Return tqdm's options for a stream: on a terminal only, and as wide as that is.

    A serial console says it has 0 columns, and tqdm would take its word.
    """
    if not stream.isatty():
        return {"disable": True}
    try:
        known = os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        known = False
    return {"file": stream} if known else {"file": stream, "ncols": _COLUMNS}


def have_stderr() -> None:
    """Send stderr nowhere if whoever started this program has closed it."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def give_up_stdout() -> None:
    """Send what is still to be printed nowhere: Python would complain of it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
