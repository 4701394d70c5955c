"""Cutting a stream of JPEG images into its images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from edgemask.errors import SourceError

__all__ = ["START", "split_jpegs"]

START = b"\xff\xd8"

_CHUNK = 1 << 16
_LARGEST = 64 << 20
_RESTART = range(0xD0, 0xD8)
_SCAN, _START_CODE, _END, _STUFFED, _APP2 = 0xDA, 0xD8, 0xD9, 0x00, 0xE2


class _Bytes:
    """The bytes of a stream with a view ahead."""

    def __init__(self, stream: IO[bytes], start: bytes) -> None:
        # read1 returns what a pipe holds now; read would wait for a full chunk.
        self._read = getattr(stream, "read1", stream.read)
        self.ahead = bytearray(start)

    def has(self, count: int) -> bool:
        """Read until `count` bytes are ahead; False if the stream ends before."""
        if count > _LARGEST:
            raise SourceError(
                f"the stream has an image of more than {_LARGEST >> 20} MB: check what sends it"
            )
        while len(self.ahead) < count:
            chunk = self._read(_CHUNK)
            if not chunk:
                return False
            self.ahead += chunk
        return True

    def take(self, count: int) -> bytes:
        taken = bytes(self.ahead[:count])
        del self.ahead[:count]
        return taken


def split_jpegs(
    stream: IO[bytes], start: bytes = b"", *, photograph: bool = False
) -> Iterator[bytes]:
    """Yield the JPEG images that follow one another, as ``rpicam-vid --codec mjpeg`` sends them.

    The segments of each image are walked by their lengths, since a thumbnail in its EXIF data ends
    with the same marker as the image. What is damaged is skipped up to the next image.

    Parameters
    ----------
    stream : binary file
    start : bytes
        What has been read from it already.
    photograph : bool
        The stream may be a single file. Then one in Multi-Picture Format is one image, whatever
        follows in it, and so is one that is damaged or incomplete: its decoder says so.

    Yields
    ------
    bytes

    Raises
    ------
    SourceError
        An image is larger than any camera's.
    """
    data = _Bytes(stream, start)
    while data.has(2):
        if data.ahead[:2] != START:
            # Padding, or the header of a multipart stream.
            found = data.ahead.find(START)
            data.take(found if found >= 0 else len(data.ahead) - 1)
            continue
        length, multi_picture = _length(data)
        if photograph and (multi_picture or not length):
            while data.has(len(data.ahead) + 1):
                pass
            yield data.take(len(data.ahead))
            return
        photograph = False
        if length is None:
            return  # the sender stopped within an image
        if length:
            yield data.take(length)
        else:
            data.take(len(START))


def _length(data: _Bytes) -> tuple[int | None, bool]:
    """Return the length of the image ahead, and whether it is a multi-picture file.

    The length is None if the stream ends before the image, and 0 if the image is damaged.
    """
    place, multi_picture = 2, False
    while data.has(place + 4):
        marker, code = data.ahead[place], data.ahead[place + 1]
        if marker != 0xFF or code in (_STUFFED, _START_CODE, _END):
            return 0, multi_picture
        if code == 0xFF:  # fill bytes
            place += 1
            continue
        size = int.from_bytes(data.ahead[place + 2 : place + 4], "big")
        if not data.has(place + 2 + size):
            return None, multi_picture
        if code == _APP2 and data.ahead[place + 4 : place + 8] == b"MPF\0":
            multi_picture = True
        place += 2 + size
        if code == _SCAN:
            place, ended = _end_of_scan(data, place)
            if ended:
                return place, multi_picture
    return None, multi_picture


def _end_of_scan(data: _Bytes, place: int) -> tuple[int, bool]:
    """Return where the compressed data ends, and whether the image ends there."""
    while data.has(place + 2):
        found = data.ahead.find(b"\xff", place, len(data.ahead) - 1)
        if found < 0:
            place = len(data.ahead) - 1
            continue
        code = data.ahead[found + 1]
        if code == _END:
            return found + 2, True
        if code == _STUFFED or code in _RESTART:
            place = found + 2
        elif code == 0xFF:
            place = found + 1
        else:  # tables before the next scan of a progressive image
            return found, False
    return place, False
