"""Images in files, folders and standard input."""

from __future__ import annotations

import io
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from edgemask.errors import SourceError
from edgemask.images import load_image, read_pipe
from edgemask.sources.base import Frame, Source
from edgemask.sources.jpegs import START, split_jpegs

__all__ = ["ImageFiles", "StandardInput"]


class ImageFiles(Source):
    """Image files, each a frame.

    A file that cannot be read raises SourceError from :meth:`read`; the next call goes on with the
    file after it.

    Parameters
    ----------
    name : str
    paths : sequence of str
        Read one by one, when they are asked for.
    """

    def __init__(self, name: str, paths: Sequence[str]) -> None:
        super().__init__(name)
        self.paths = list(paths)
        self.length = len(self.paths)
        self._next = 0

    def read(self, timeout: float = 5.0) -> Frame | None:
        if self.closed or self._next >= len(self.paths):
            return None
        index, path = self._next, self.paths[self._next]
        self._next += 1
        return Frame(load_image(path), index, None, time.time_ns(), path, Path(path))

    def _release(self) -> None:
        pass


class StandardInput(Source):
    """What is piped in: one image of any kind, or JPEG images one after the other.

    Parameters
    ----------
    stream : binary file, optional
        Standard input by default.
    """

    def __init__(self, stream: IO[bytes] | None = None) -> None:
        super().__init__("-")
        if stream is None and sys.stdin is None:
            raise SourceError("standard input is closed: pipe an image into it")
        self._images = self._cut(sys.stdin.buffer if stream is None else stream)
        self._index = 0

    def _cut(self, stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
        start = stream.read(len(START))
        if start != START:
            yield "stdin", read_pipe(stream, "stdin", start).getvalue()
            return
        images = split_jpegs(stream, start, photograph=True)
        first, second = next(images, start), next(images, None)
        if second is None:
            yield "stdin", first
            return
        for number, image in enumerate(itertools.chain([first, second], images)):
            yield f"stdin-{number:06d}", image

    def read(self, timeout: float = 5.0) -> Frame | None:
        taken = None if self.closed else next(self._images, None)
        if taken is None:
            return None
        name, data = taken
        index, self._index = self._index, self._index + 1
        content = io.BytesIO(data)
        content.name = name
        return Frame(load_image(content), index, None, time.time_ns(), name)

    def _release(self) -> None:
        pass
