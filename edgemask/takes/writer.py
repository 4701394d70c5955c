"""Writing a take, a frame at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from edgemask.errors import OutputError
from edgemask.instances import Instances
from edgemask.outputs import json_line, output_error
from edgemask.takes.durable import Durable

if TYPE_CHECKING:
    from edgemask.sources.base import Frame

__all__ = ["SCHEMA", "TakeWriter"]

SCHEMA = "edgemask.frame/1"


class TakeWriter:
    """A new file of JSON Lines, given to the system after each frame: a killed program loses none.

    A power cut costs what was written in the last two seconds. A context manager.

    Parameters
    ----------
    path : path
        Must not exist: a take cannot be made again. Its folder is created.

    Attributes
    ----------
    path : Path

    Raises
    ------
    OutputError
        The file exists, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: IO[bytes] = open(self.path, "xb")  # noqa: SIM115
        except OSError as error:
            if isinstance(error, FileExistsError) and self.path.exists():
                raise OutputError(f"{self.path} exists already: choose another name") from error
            raise output_error(self.path, error) from error
        self._durable = Durable()
        self._durable.add(self.path)

    def add(
        self, frame: Frame, instances: Instances, model: Mapping[str, str] | None = None
    ) -> None:
        """Write what was found in a frame.

        The line has ``schema``, ``source`` (the frame's name), ``index``, ``sensor_ns`` (None if
        the source has no clock), ``wall_ns``, ``model``, and what
        :meth:`edgemask.instances.Instances.to_dict` returns.

        Parameters
        ----------
        frame : Frame
        instances : Instances
            With track ids, see :class:`edgemask.tracking.Tracker`.
        model : mapping, optional
            ``name``, ``version`` and ``sha256`` of the model pack.

        Raises
        ------
        OutputError
            The disk is full, for instance. What was written before stays.
        """
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "source": frame.name,
            "index": frame.index,
            "sensor_ns": frame.sensor_ns,
            "wall_ns": frame.wall_ns,
            "model": None if model is None else dict(model),
            **instances.to_dict(),
        }
        self._durable.check()
        try:
            self._stream.write(json_line(record))
            self._stream.flush()
        except OSError as error:
            raise output_error(self.path, error) from error

    def close(self) -> None:
        """Close the file when the disk has it."""
        try:
            self._stream.close()
        except OSError as error:
            raise output_error(self.path, error) from error
        finally:
            self._durable.close()

    def __enter__(self) -> TakeWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
