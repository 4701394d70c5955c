"""The frames of one source, for verbs that take a single one."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from edgemask.cli import common
from edgemask.errors import SourceError

if TYPE_CHECKING:
    from edgemask.sources.base import Frame, Source

__all__ = ["Frames"]


class Frames:
    """Opens a source and yields its frames; a context manager.

    A live source that stops is opened again. An image file that cannot be read is named and left
    out. A film that was recorded has the times of its recording, if they are still beside it.

    Parameters
    ----------
    uri : str
    attempts : int
        To open a live source again, in a row and without a frame.

    Attributes
    ----------
    source : Source
        The one that was opened first.
    progress : common.Progress or None
        Cleared before anything is said.
    failures : int
        Files that could not be read.
    """

    def __init__(self, uri: str, attempts: int) -> None:
        from edgemask.sources import open_source

        self.progress: common.Progress | None = None
        self._uri, self._attempts = uri, attempts
        self.source = self._current = open_source(uri)
        self._dropped_before = 0  # by those that were opened before the current one
        self._frames = self._all()
        self.failures = 0

    @property
    def dropped(self) -> int:
        """Frames that came too fast."""
        return self._dropped_before + self._current.dropped

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def __enter__(self) -> Frames:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._frames.close()
        self._current.close()

    def _all(self) -> Generator[Frame, None, None]:
        from edgemask.sources.files import ImageFiles
        from edgemask.sources.video import VideoFile
        from edgemask.takes.times import timed, times_path

        source = self.source
        if source.live:
            yield from self._live()
        elif isinstance(source, VideoFile) and times_path(self._uri).is_file():
            yield from timed(source, times_path(self._uri))
        elif isinstance(source, ImageFiles):
            yield from self._readable(source)
        else:
            yield from source

    def _live(self) -> Iterator[Frame]:
        from edgemask.live.reopen import BACKOFF, Backoff, reopening
        from edgemask.sources import open_source

        def again() -> Source:
            opened = open_source(self._uri)
            self._dropped_before += self._current.dropped
            self._current = opened
            return opened

        def report(line: str) -> None:
            self._clear()
            common.report_warning(line)

        frames = reopening(self.source, again, Backoff(*BACKOFF, self._attempts), report)
        with contextlib.closing(frames):
            yield from frames

    def _clear(self) -> None:
        if self.progress is not None:
            self.progress.clear()

    def _readable(self, source: Source) -> Iterator[Frame]:
        while True:
            try:
                frame = source.read()
            except SourceError as error:
                self._clear()
                common.report_error(str(error))
                self.failures += 1
                continue
            if frame is None:
                return
            yield frame
