"""Files that outlast a power cut, but for their last seconds.

Linux keeps what a program writes in memory for half a minute, a new file's name included. A board
is usually switched off by pulling its plug.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from edgemask.outputs import output_error, sync, sync_folder

__all__ = ["SECONDS", "Durable"]

SECONDS = 2.0
"""What a power cut may cost."""


class Durable:
    """A thread that has the disk take what was written to some files, every few seconds.

    Parameters
    ----------
    seconds : float
        Pause between two times.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._files: dict[int, Path] = {}
        self._failed: tuple[Path, OSError] | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, path: Path) -> None:
        """Take care of a file that exists; its name is on the disk when this returns.

        Raises
        ------
        OutputError
            The disk refuses.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            self._files = {**self._files, descriptor: path}  # the thread may be going through them
            sync_folder(path.parent)
        except OSError as error:
            raise output_error(path, error) from error
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="edgemask-durable", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Raise OutputError if the disk has refused something since the last call."""
        failed, self._failed = self._failed, None
        if failed:
            raise output_error(*failed) from failed[1]

    def close(self) -> None:
        """Wait until the disk has everything; raises as :meth:`check`. Again: does nothing."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self._sync_all()
        files, self._files = self._files, {}
        for descriptor in files:
            os.close(descriptor)
        self.check()

    def _run(self) -> None:
        while not self._closed.wait(self._seconds):
            self._sync_all()

    def _sync_all(self) -> None:
        for descriptor, path in self._files.items():
            try:
                sync(descriptor)
            except OSError as error:
                self._failed = (path, error)
