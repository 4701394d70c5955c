"""The system that is examined, seen only through its files, and what a check has to say about it.

Every check takes a :class:`Host`, so any broken board can be shown to a test, and a card that does
not boot can be examined from another computer.
"""

from __future__ import annotations

import functools
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgemask.live.board import Board, read_board

__all__ = ["Answer", "Finding", "Host", "note", "ok", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check : str
        Name of the check.
    status : str
        ``"ok"``; ``"problem"``; or ``"note"`` for what is neither, or cannot be told from here.
    text : str
        What was found, in one line.
    cure : str
        The command that mends it, or what to do where no command can; empty if nothing needs to be
        done.
    """

    check: str
    status: Literal["ok", "problem", "note"]
    text: str
    cure: str = ""


def ok(check: str, text: str) -> Finding:
    """Return a finding that is fine."""
    return Finding(check, "ok", text)


def problem(check: str, text: str, cure: str) -> Finding:
    """Return a finding that must be mended."""
    return Finding(check, "problem", text, cure)


def note(check: str, text: str, cure: str = "") -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(check, "note", text, cure)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a program ended: its status (negative: the signal that ended it) and what it printed."""

    status: int
    output: str
    errors: str = ""


def run_program(command: Sequence[str], timeout: float) -> Answer | None:
    """Run a program of this system; None if there is none of that name, or it takes too long."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=timeout, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return Answer(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Host:
    """A system under a root folder.

    Attributes
    ----------
    root : path
        Folder that stands for ``/``.
    live : bool
        Whether it is the system that this process runs on. Only then are programs run.
    run : callable
        ``run(command, seconds)`` gives an :class:`Answer`, or None.
    statvfs, now : callable
        ``os.statvfs`` and ``time.time``.
    """

    root: Path = Path("/")
    live: bool = True
    run: Callable[[Sequence[str], float], Answer | None] = field(default=run_program)
    statvfs: Callable[[Path], os.statvfs_result] = field(default=os.statvfs)
    now: Callable[[], float] = field(default=time.time)

    @functools.cached_property
    def board(self) -> Board:
        """What the board says about itself."""
        return read_board(self.root, programs=self.live)

    @property
    def is_raspberry_pi(self) -> bool:
        """Whether the board is a Raspberry Pi."""
        return "Raspberry Pi" in (self.board.model or "")

    def path(self, name: str) -> Path:
        """Return where a path of the system (``etc/os-release``) is."""
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """Return a file's text without blanks and NULs at its ends; None if it cannot be read."""
        try:
            return self.path(name).read_bytes().decode("utf-8", "replace").strip("\0 \t\r\n")
        except OSError:
            return None

    def glob(self, pattern: str) -> list[Path]:
        """Return the existing paths of a pattern, sorted."""
        try:
            return sorted(self.root.glob(pattern))
        except OSError:
            return []

    def os_release(self) -> dict[str, str]:
        """Return the keys of os-release."""
        text = self.text("etc/os-release") or self.text("usr/lib/os-release") or ""
        pairs = (line.partition("=") for line in text.splitlines())
        return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs if value}
