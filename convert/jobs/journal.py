"""Results per image in an append-only file, so that a killed run goes on where it was.

The first line says what the run is; each further line is one image. Lines are complete or, the
last one, cut off by the kill: that image is done again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgemask.errors import OutputError

__all__ = ["Journal", "JournalError"]


class JournalError(ValueError):
    """A journal is damaged, or belongs to another run."""


class Journal:
    """Results of a run, by image id.

    Parameters
    ----------
    path : path
        Created if it is missing.
    run : mapping
        What the results depend on, JSON-ready. An existing file must have been begun with the
        same.

    Raises
    ------
    JournalError
        The file belongs to another run.
    OutputError
        It cannot be read or written.
    """

    def __init__(self, path: str | Path, run: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.done: dict[int, dict[str, Any]] = {}
        first = json.dumps({"run": run}, sort_keys=True)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = self._read(first)
            self._stream = open(self.path, "ab")  # noqa: SIM115, closed by close()
            self._stream.truncate(whole)
            if not whole:
                self._append(first)
        except OSError as error:
            raise _failed(self.path, error) from error

    def _read(self, first: str) -> int:
        """Fill `done`; return how many bytes of the file are complete lines."""
        if not self.path.exists():
            return 0
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        lines = content[:whole].splitlines()
        if not lines:
            return 0
        try:
            if lines[0].decode() != first:
                raise JournalError(
                    f"{self.path} was begun with another teacher or model, other options or "
                    "another dataset: delete it to start again, or write to another file"
                )
            for line in lines[1:]:
                entry = json.loads(line)
                self.done[entry["image_id"]] = entry
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise JournalError(f"{self.path} is damaged ({error}): delete it") from error
        return whole

    def add(self, image_id: int, result: Mapping[str, Any]) -> None:
        """Write one image's result; it survives a kill of the process from here on."""
        entry = {"image_id": image_id, **result}
        try:
            self._append(json.dumps(entry))
        except OSError as error:
            raise _failed(self.path, error) from error
        self.done[image_id] = entry

    def _append(self, line: str) -> None:
        self._stream.write(line.encode() + b"\n")
        self._stream.flush()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.done.values())

    def close(self, remove: bool = False) -> None:
        """Close the file; delete it when its results are in the finished file."""
        with contextlib.suppress(OSError):  # of a line that could not be written, and was said
            self._stream.close()
        if remove:
            os.remove(self.path)


def _failed(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"{path} cannot be written ({reason}): choose another folder with --out")
