"""What is to be measured, in a form that fits on the command line of a worker."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

__all__ = ["Configuration"]


@dataclass(frozen=True, slots=True)
class Configuration:
    """One run of the benchmark.

    Attributes
    ----------
    pack : str
        Name of a bundled model, or path of a pack.
    threads : int
        Of the runtime.
    short_side : int or None
        Of the network's input, pixels; None is the pack's own.
    image : str or None
        Path of the picture; None is the bundled photograph at 640x480.
    frames : int
        Frames to time, after those that warm up.
    seconds : float or None
        Run for so long, whatever `frames` says.
    interval : float
        Seconds between two looks at the board while running for `seconds`.
    """

    pack: str
    threads: int = 1
    short_side: int | None = None
    image: str | None = None
    frames: int = 50
    seconds: float | None = None
    interval: float = 5.0

    def to_json(self) -> str:
        """Return the configuration as one line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Configuration:
        """Return the configuration that :meth:`to_json` wrote."""
        return cls(**json.loads(text))
