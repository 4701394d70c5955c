"""Run-length encoding of masks in the format of COCO and pycocotools.

The mask is read column by column; the counts are the lengths of its runs of equal pixels,
beginning with a run of background, which may be empty. As text, each count (from the fourth on
its difference to the one two before) is a base-32 number, least significant digit first, one
character per digit, in which bit 5 says that more digits follow (Lin et al., COCO API).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemask.errors import InputError

__all__ = ["check_crop", "decode", "encode_crop", "run_lengths"]

Counts = NDArray[np.int64]

_OFFSET = 48
_MAX_DIGITS = 12  # of a number that fits into 64 bits


def check_crop(crop: NDArray[np.bool_], x0: int, y0: int, height: int, width: int) -> None:
    """Raise InputError unless the crop is a two-dimensional bool array within the image."""
    if crop.ndim != 2 or crop.dtype != np.bool_:
        raise InputError(f"a crop is {crop.dtype} of shape {crop.shape}; give bool of shape (h, w)")
    rows, columns = crop.shape
    if not (0 <= x0 <= width - columns and 0 <= y0 <= height - rows):
        raise InputError(
            f"a {rows}x{columns} crop at x0={x0}, y0={y0} leaves the {height}x{width} image; "
            "clip it first"
        )


def encode_crop(crop: NDArray[np.bool_], x0: int, y0: int, height: int, width: int) -> bytes:
    """Return the COCO counts of a mask that is given by a crop; outside of it is background.

    The dense mask is never built: the cost depends on the crop only.

    Parameters
    ----------
    crop : ndarray of bool, shape (h, w)
        May be empty.
    x0, y0 : int
        Column and row of the image where the crop's top left pixel lies.
    height, width : int
        Size of the image in pixels.

    Returns
    -------
    bytes
        Compressed counts: the value of ``"counts"`` next to ``"size": [height, width]``.

    Raises
    ------
    InputError
        If the crop is not a two-dimensional bool array or does not lie within the image.
    """
    check_crop(crop, x0, y0, height, width)
    rows, columns = crop.shape
    # Columns end to end, each preceded by one pixel of background: then every run starts and
    # ends inside its column, and the changes alternate between starts and ends.
    padded = np.zeros(columns * (rows + 1) + 1, np.bool_)
    padded[:-1].reshape(columns, rows + 1)[:, 1:] = crop.T
    changes = np.flatnonzero(padded[1:] != padded[:-1])
    column, row = np.divmod(changes, rows + 1)
    # An end at the bottom of the crop is found at the first pixel of the next column.
    wrapped = column[1::2] - column[0::2]
    column[1::2] -= wrapped
    row[1::2] += wrapped * (rows + 1)
    borders = (column + x0) * height + (row + y0)
    # Where the crop spans the whole height, runs continue from one column into the next.
    split = np.flatnonzero(borders[1:-1:2] != borders[2::2])
    if len(split) * 2 + 2 < len(borders):
        keep = np.empty((len(split) + 1, 2), np.int64)
        keep[0, 0], keep[-1, 1] = 0, len(borders) - 1
        keep[:-1, 1], keep[1:, 0] = 2 * split + 1, 2 * split + 2
        borders = borders[keep.reshape(-1)]
    total = height * width
    counts = np.diff(borders, prepend=0, append=total)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return _compress(counts)


def decode(counts: bytes | str, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask that COCO counts describe.

    Parameters
    ----------
    counts : bytes or str
        Compressed counts.
    height, width : int
        Size of the image in pixels.

    Returns
    -------
    ndarray of bool, shape (height, width)

    Raises
    ------
    InputError
        If the counts are damaged or belong to an image of another size.
    """
    runs = run_lengths(counts, height, width)
    inside = np.zeros(len(runs), np.bool_)
    inside[1::2] = True
    return np.ascontiguousarray(np.repeat(inside, runs).reshape(width, height).T)


def run_lengths(counts: bytes | str, height: int, width: int) -> Counts:
    """Return the lengths of the runs that COCO counts describe; see :func:`decode`."""
    data = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    runs, total = _decompress(data), height * width
    # Each by itself too: a sum of 64-bit numbers may come round to any other.
    if not (runs.min() >= 0 and runs.max() <= total and runs.sum() == total):
        raise InputError(
            f"the RLE counts do not add up to {height}x{width} pixels; check the mask's size"
        )
    return runs


def _compress(counts: Counts) -> bytes:
    values = counts.copy()
    values[3:] -= counts[1:-2]
    # A digit more than the bits ask for leaves room for the sign.
    length = int(np.abs(values).max()).bit_length() // 5 + 1
    digits = values[:, None] >> (5 * np.arange(length))
    # A number is complete with the first digit after which only its sign is left.
    rest = np.where(digits & 0x10, (digits >> 5) + 1, digits >> 5)
    more = np.logical_and.accumulate(rest != 0, axis=1)
    used = np.ones_like(more)
    used[:, 1:] = more[:, :-1]
    characters = (digits & 0x1F) + (more << 5) + _OFFSET
    return characters[used].astype(np.uint8).tobytes()


def _decompress(data: bytes) -> Counts:
    digits = np.frombuffer(data, np.uint8).astype(np.int64) - _OFFSET
    if not len(digits) or digits.min() < 0 or digits.max() > 0x3F or digits[-1] & 0x20:
        raise InputError("the RLE counts are not in COCO's compressed format, or are cut short")
    last = np.flatnonzero(~digits & 0x20)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _MAX_DIGITS:
        raise InputError("the RLE counts hold a number too large for an image; they are damaged")
    place = 5 * (np.arange(len(digits)) - np.repeat(first, lengths))
    values = np.add.reduceat((digits & 0x1F) << place, first)
    values -= np.where(digits[last] & 0x10, 1 << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
