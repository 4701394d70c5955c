"""Reading photographs: every kind of file becomes uint8 RGB, or an error that says why not."""

from __future__ import annotations

import contextlib
import glob
import io
import math
import os
import re
import threading
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgemask.errors import InputError, SourceError

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "as_rgb",
    "expand_source",
    "load_image",
    "megapixels",
    "read_pipe",
]

Pixels = NDArray[np.uint8]

MAX_PIXELS = 100_000_000
"""Largest image that is read: 100 megapixels are 700 MB while decoding."""

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg", "mpo"),
        *("pbm", "pgm", "png", "pnm", "ppm", "tga", "tif", "tiff", "webp"),
    )
)
"""Names that count as images when a folder is given."""

_BAND_PIXELS = 2**20
_MOST_BYTES = 4 * MAX_PIXELS  # of a file; the largest image uncompressed, with transparency
_CHUNK = 2**20
_ORIENTATION = 0x0112
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


class _Quiet:
    """No warnings while any thread is in it.

    Pillow warns of odd metadata, and from 89 megapixels on; the limit here is another. The filters
    of Python are those of all threads, so the first one in changes them and the last one out puts
    them back.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._filters = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.close()


_QUIET = _Quiet()


def load_image(source: str | os.PathLike[str] | IO[bytes]) -> Pixels:
    """Read an image file as it is meant to be seen.

    The EXIF orientation is applied; grey, palette, CMYK and 1-bit images become RGB, 16-bit grey is
    divided by 257, and what is transparent is laid over white. Of an animation or a multi-page file
    the first frame is read. Colour profiles are not applied.

    Parameters
    ----------
    source : path or binary file
        Any format that the installed Pillow reads.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)

    Raises
    ------
    SourceError
        Missing, a folder, empty, not an image, truncated, or more than `MAX_PIXELS` pixels (which
        is found out from the header, before anything is decoded).
    """
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        try:
            with open(source, "rb") as stream:
                return _decode(stream, name)
        except SourceError:
            raise
        except IsADirectoryError as error:
            raise SourceError(f"{name} is a folder, not an image: give a file") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
            reason = getattr(error, "strerror", None) or str(error)
            raise SourceError(f"{name} cannot be read ({reason}): check the path") from error
    return _decode(source, str(getattr(source, "name", "the stream")))


def megapixels(path: str | os.PathLike[str]) -> float:
    """Return the size of an image file in millions of pixels, by its header; 0 if it has none.

    That of a pipe is infinite: it can be read only once, and is left to whoever decodes it.
    """
    try:
        if Path(path).is_fifo():
            return math.inf
        with _QUIET, Image.open(path) as image:
            return image.width * image.height / 1e6
    except Exception:  # load_image says what is wrong with it
        return 0.0


def as_rgb(image: Any) -> Pixels:
    """Return an image as uint8 RGB.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3), or PIL.Image, or path
        Arrays are taken as RGB and returned as they are. A PIL.Image keeps its own orientation, so
        that results fit the image the caller holds; a path is read with :func:`load_image`.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)

    Raises
    ------
    InputError
        Another dtype, shape or type; the message says how to convert it.
    SourceError
        The path cannot be read.
    """
    if isinstance(image, np.ndarray):
        _check_array(image)
        return image
    if isinstance(image, Image.Image):
        width, height = image.size
        if width < 1 or height < 1:
            raise InputError(f"the image is {width}x{height} pixels: give one that is not empty")
        _check_size(width, height, "the image")
        try:
            image.load()
            return _fill(image, 1, "the image")
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(f"the image cannot be decoded ({error}): open it again") from error
    if isinstance(image, str | os.PathLike):
        return load_image(image)
    raise InputError(
        f"the image is a {type(image).__name__}: give a uint8 array (H, W, 3), a PIL.Image or a "
        "path"
    )


def expand_source(source: str) -> list[str]:
    """Return the files that one file name, folder or glob pattern stands for.

    A folder stands for the images directly in it, by suffix, in the order of their names; hidden
    files are left out. A pattern may use ``**``.

    Raises
    ------
    SourceError
        Nothing is there, a folder holds no image, or a pattern matches no file.
    """
    path = Path(source)
    try:
        if source and path.is_dir():
            found = sorted(
                str(entry)
                for entry in path.iterdir()
                if entry.suffix.lower() in SUFFIXES
                and not entry.name.startswith(".")
                and not entry.is_dir()
            )
            if not found:
                raise SourceError(
                    f"folder {source} has no images: put {', '.join(sorted(SUFFIXES))} files in it"
                )
            return found
        if source and path.exists():
            return [source]
    except (OSError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{source!r} cannot be read ({reason}): check the path") from error
    if glob.has_magic(source):
        found = sorted(f for f in glob.glob(source, recursive=True) if not os.path.isdir(f))
        if found:
            return found
        raise SourceError(f"no file matches {source!r}: check the pattern and the quotes around it")
    raise SourceError(f"{source!r} does not exist: check the path")


def _decode(stream: IO[bytes], name: str) -> Pixels:
    """Decode an open binary file."""
    if not stream.seekable():
        stream = read_pipe(stream, name)
    try:
        with _QUIET:
            image = Image.open(stream)
            with image:
                _check_size(*image.size, name)
                if image.format == "EPS":  # a program, for which Pillow starts Ghostscript
                    raise UnidentifiedImageError
                image.load()
                return _fill(image, _orientation(image), name)
    except SourceError:
        raise
    except Image.DecompressionBombError as error:
        # Pillow's own, higher limit; its message has the number of pixels.
        pixels = re.search(r"\d{7,}", str(error))
        size = f" of {int(pixels[0]) // 10**6} megapixels" if pixels else ""
        raise _too_large(name, size) from error
    except UnidentifiedImageError as error:
        raise SourceError(f"{name} {_why_unknown(stream, name)}") from error
    except MemoryError as error:
        raise SourceError(f"{name} does not fit into memory: make it smaller first") from error
    # Pillow's decoders answer damaged data with nearly any exception.
    except Exception as error:
        raise SourceError(
            f"{name} is damaged or incomplete ({error}): copy or export it again"
        ) from error


def read_pipe(stream: IO[bytes], name: str, start: bytes = b"") -> io.BytesIO:
    """Return all that comes from a pipe, after what has been read from it already.

    Raises
    ------
    SourceError
        It is more than any image, and may have no end.
    """
    whole = io.BytesIO()
    whole.write(start)
    while chunk := stream.read(_CHUNK):
        whole.write(chunk)
        if whole.tell() > _MOST_BYTES:
            raise SourceError(
                f"{name} is more than {_MOST_BYTES // 10**6} MB: give an image of fewer bytes"
            )
    whole.seek(0)
    return whole


def _why_unknown(stream: IO[bytes], name: str) -> str:
    stream.seek(0)
    start = stream.read(16)
    if not start:
        return "is empty (0 bytes): copy or export it again"
    if start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1"):
        return "is a HEIC photograph, which Pillow does not read: export it as JPEG"
    if start.startswith(_BEGINNINGS):
        return "is damaged or incomplete (its header cannot be read): copy or export it again"
    if Path(name).suffix.lower() in SUFFIXES:
        return f"is not an image, whatever its name says (it starts with {start[:8]!r}): replace it"
    return "is not an image that Pillow reads: give a JPEG, PNG, WebP, TIFF, BMP or GIF file"


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(name, f" of {width}x{height} pixels")


def _too_large(name: str, size: str) -> SourceError:
    return SourceError(
        f"{name} is an image{size} above the limit of {MAX_PIXELS // 10**6} megapixels: "
        "make it smaller first"
    )


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF does not make the picture unusable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _fill(image: Image.Image, orientation: int, name: str) -> Pixels:
    """Convert a decoded image band by band, so that a large one is not in memory three times."""
    width, height = image.size
    out = np.empty((width, height, 3) if orientation > 4 else (height, width, 3), np.uint8)
    target = _as_stored(out, orientation)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        target[top:bottom] = _rgb_band(image.crop((0, top, width, bottom)), name)
    return out


def _as_stored(out: Pixels, orientation: int) -> Pixels:
    """Return a view of the upright image in which rows and columns run as in the file."""
    if orientation in (5, 6, 7, 8):
        out = out.transpose(1, 0, 2)
    if orientation in (3, 4, 6, 7):
        out = out[::-1]
    if orientation in (2, 3, 7, 8):
        out = out[:, ::-1]
    return out


def _rgb_band(band: Image.Image, name: str) -> Pixels:
    if band.mode == "RGB" and "transparency" not in band.info:
        return np.asarray(band)
    if band.mode.startswith("I"):
        grey = np.asarray(band).astype(np.int64)
        scaled = (np.clip(grey, 0, 65535) + 128) // 257
        return np.repeat(scaled.astype(np.uint8)[:, :, None], 3, axis=2)
    if band.mode == "F":
        raise SourceError(f"{name} has floating-point pixels: convert it to 8 bits a channel first")
    if band.mode in _ALPHA_MODES or "transparency" in band.info:
        # Pillow cannot turn grey that is multiplied by its alpha into RGBA at once.
        above = (band.convert("LA") if band.mode == "La" else band).convert("RGBA")
        white = Image.new("RGBA", band.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, above).convert("RGB"))
    return np.asarray(band.convert("RGB"))


def _check_array(array: NDArray[Any]) -> None:
    found = f"the image is a {array.dtype} array of shape {array.shape}"
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8:
        if array.size:
            return
        raise InputError(f"{found}, which is empty: give at least one pixel")
    wanted = "give uint8 (H, W, 3) RGB"
    if array.ndim == 2:
        hint = "np.stack([image] * 3, axis=-1) makes grey RGB"
    elif array.ndim == 4:
        hint = "give the images of a batch one by one"
    elif array.ndim == 3 and array.shape[2] == 4:
        hint = "image[..., :3] drops the alpha channel"
    elif array.ndim == 3 and array.shape[2] == 1:
        hint = "np.repeat(image, 3, axis=2) makes grey RGB"
    elif array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] != 3:
        hint = "image.transpose(1, 2, 0) puts the channels last"
    elif array.ndim == 3 and array.shape[2] == 3 and array.dtype.kind == "f":
        hint = "(image * 255).round().astype(np.uint8) converts from 0 ... 1"
    elif array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint16:
        hint = "(image // 257).astype(np.uint8) converts from 16 bits"
    else:
        hint = "edgemask.load_image(path) makes it from a file"
    raise InputError(f"{found}: {wanted}; {hint}")
