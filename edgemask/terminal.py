"""What a progress bar has to know about the terminal it is drawn on."""

from __future__ import annotations

import os
from typing import Any, TextIO

__all__ = ["bar_options"]

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
