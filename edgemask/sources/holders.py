"""Finding out who holds a camera."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Holder", "describe_holders", "holders"]


@dataclass(frozen=True, order=True)
class Holder:
    """A process, and the device nodes it has open."""

    pid: int
    name: str
    devices: tuple[str, ...]


def holders(wanted: Callable[[str], bool], proc: Path = Path("/proc")) -> list[Holder]:
    """Return the processes that have a device open.

    Processes of other users are seen by root only; they are left out.

    Parameters
    ----------
    wanted : callable
        Gets the path of an open file, ``/dev/video0``, and says whether it counts.
    proc : path
        Where the proc file system is mounted.
    """
    found = []
    for folder in proc.glob("[0-9]*"):
        devices = set()
        try:
            for entry in os.scandir(folder / "fd"):
                with contextlib.suppress(OSError):  # closed since it was listed
                    target = os.readlink(entry.path)
                    if target.startswith("/dev/") and wanted(target):
                        devices.add(target)
            if devices:
                name = (folder / "comm").read_text("utf-8", "replace").strip()
                found.append(Holder(int(folder.name), name, tuple(sorted(devices))))
        except OSError:  # another user's, or it has ended
            continue
    return sorted(found)


def describe_holders(found: list[Holder]) -> str:
    """Return who holds a camera and how to get it back, for the end of a message."""
    if not found:
        return (
            "another process holds it, one that only root can see: sudo fuser -v /dev/media* "
            "/dev/video* names it"
        )
    own = [holder for holder in found if holder.pid == os.getpid()]
    if own:
        return f"this process (pid {own[0].pid}) holds {', '.join(own[0].devices)}: close it first"
    listed = ", ".join(
        f"{holder.name} (pid {holder.pid}) holds {', '.join(holder.devices)}" for holder in found
    )
    return f"{listed}: stop it first"
