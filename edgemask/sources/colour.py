"""From the pixel formats of cameras to RGB, in integers."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemask.errors import SourceError

__all__ = ["FORMATS", "MATRICES", "Layout", "to_rgb"]

Pixels = NDArray[np.uint8]
_Shorts = NDArray[np.int16]

MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
"""Shares of red and blue in luma (ITU-R BT.601-7, BT.709-6, BT.2020-2)."""

# libcamera's names are those of DRM: the letters run from the high bits of a little-endian word to
# the low ones, so the bytes of RGB888 are B, G, R.
_PACKED = {
    "BGR888": (3, slice(0, 3)),
    "RGB888": (3, slice(2, None, -1)),
    "XBGR8888": (4, slice(0, 3)),
    "XRGB8888": (4, slice(2, None, -1)),
}
_CHROMA = ("YUV420", "YVU420", "NV12", "NV21", "YUYV", "UYVY")

FORMATS = (*_PACKED, *_CHROMA)
"""Formats that :func:`to_rgb` understands, by libcamera's names."""

_BITS = 5  # of fraction; with 6 the sum of luma and chroma would leave int16
_BAND_PIXELS = 2**16


@dataclass(frozen=True)
class Layout:
    """How the pixels of a frame lie in its buffer.

    Attributes
    ----------
    format : str
        One of `FORMATS`.
    width, height : int
        In pixels, both even for the formats with chroma.
    stride : int
        Bytes from one row of the first plane to the next; may include padding.
    matrix : str
        One of `MATRICES`; only for formats with chroma.
    full_range : bool
        Whether luma runs from 0 to 255 (JPEG) or from 16 to 235 (video).
    """

    format: str
    width: int
    height: int
    stride: int
    matrix: str = "bt601"
    full_range: bool = False


def to_rgb(buffer: NDArray[np.uint8], layout: Layout) -> Pixels:
    """Return a frame as RGB.

    Luma and chroma are looked up in tables of fixed-point numbers and added. The result differs
    from that of exact arithmetic by at most one level. Chroma is not interpolated: each sample
    stands for its 2x2 (or 2x1) pixels.

    Parameters
    ----------
    buffer : ndarray of uint8, one-dimensional
        The planes, one after the other. The planes of YUV420 and YVU420 have half the stride.
    layout : Layout

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        Shares memory with the buffer if that holds the very same bytes.

    Raises
    ------
    SourceError
        The format is not known, the size is odd, or the buffer is too short.
    """
    kind, width, height, stride = layout.format, layout.width, layout.height, layout.stride
    if kind not in FORMATS:
        raise SourceError(
            f"the camera gives {kind}, which edgemask does not read: it reads {', '.join(FORMATS)}"
        )
    if kind in _CHROMA and (width % 2 or height % 2):
        raise SourceError(f"a {kind} frame of {width}x{height}: choose an even width and height")
    rows = height * 3 // 2 if kind in _CHROMA[:4] else height
    # The last row need not be padded.
    channels = _PACKED[kind][0] if kind in _PACKED else 2 if kind in _CHROMA[4:] else 1
    if stride < width * channels or buffer.size < stride * (rows - 1) + width * channels:
        raise SourceError(
            f"a frame of {buffer.size} bytes is too short for {kind} {width}x{height} with "
            f"{stride} bytes a row: choose another size"
        )
    if buffer.size < stride * rows:
        buffer = np.concatenate([buffer, np.zeros(stride * rows - buffer.size, np.uint8)])
    image = buffer[: stride * rows].reshape(rows, stride)
    if kind in _PACKED:
        pixels = image[:, : width * channels].reshape(height, width, channels)
        return np.ascontiguousarray(pixels[..., _PACKED[kind][1]])
    return _blend(*_planes(image, layout), _tables(layout.matrix, layout.full_range))


def _planes(image: Pixels, layout: Layout) -> tuple[Pixels, Pixels, Pixels]:
    """Return views of luma (H, W) and of both chroma planes (H or H / 2, W / 2)."""
    kind, width, height, stride = layout.format, layout.width, layout.height, layout.stride
    if kind in ("YUYV", "UYVY"):
        luma, chroma = (0, 1) if kind == "YUYV" else (1, 0)
        row = image[:, : width * 2]
        return row[:, luma::2], row[:, chroma::4], row[:, chroma + 2 :: 4]
    below = image[height:]
    if kind in ("NV12", "NV21"):
        first, second = below[:, 0:width:2], below[:, 1:width:2]
    else:
        halves = below.reshape(height, stride // 2)[:, : width // 2]
        first, second = halves[: height // 2], halves[height // 2 :]
    if kind in ("NV21", "YVU420"):
        first, second = second, first
    return image[:height, :width], first, second


@functools.lru_cache(maxsize=8)
def _tables(matrix: str, full_range: bool) -> tuple[_Shorts, ...]:
    """Return tables of 256 for Y, and for what Cr adds to R, Cb and Cr to G, Cb to B."""
    red, blue = MATRICES[matrix]
    green = 1 - red - blue
    level = np.arange(256, dtype=np.float32)
    luma = level if full_range else (level - 16) * np.float32(255 / 219)
    chroma = (level - 128) * np.float32(1 if full_range else 255 / 224)
    terms = (
        luma + np.float32(0.5),  # the shift rounds down
        chroma * np.float32(2 * (1 - red)),
        chroma * np.float32(-2 * blue * (1 - blue) / green),
        chroma * np.float32(-2 * red * (1 - red) / green),
        chroma * np.float32(2 * (1 - blue)),
    )
    return tuple(np.rint(term * 2**_BITS).astype(np.int16) for term in terms)


def _blend(luma: Pixels, cb: Pixels, cr: Pixels, tables: tuple[_Shorts, ...]) -> Pixels:
    """Add luma and chroma, in bands that stay in the cache."""
    height, width = luma.shape
    share = height // len(cb)  # rows of luma to a row of chroma
    out = np.empty((height, width, 3), np.uint8)
    from_y, red_cr, green_cb, green_cr, blue_cb = tables
    step = max(1, _BAND_PIXELS // (width * share))
    for top in range(0, len(cb), step):
        u, v = cb[top : top + step], cr[top : top + step]
        first, last = top * share, (top + len(u)) * share
        y = from_y[luma[first:last]].reshape(len(u), share, width)
        target = out[first:last].reshape(len(u), share, width, 3)
        added = (red_cr[v], green_cb[u] + green_cr[v], blue_cb[u])
        for channel, term in enumerate(added):
            total = y + np.repeat(term, 2, axis=1)[:, None]
            total >>= _BITS
            target[..., channel] = np.clip(total, 0, 255, out=total)
    return out
