"""The outlines of a mask as polygons along its pixels' edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["contours"]

Ints = NDArray[np.int64]


def contours(crop: NDArray[np.bool_], x0: int = 0, y0: int = 0) -> list[NDArray[np.float32]]:
    """Return the boundaries of a mask, outer ones and holes, exactly along the pixel edges.

    Parameters
    ----------
    crop : ndarray of bool, shape (h, w)
        May be empty.
    x0, y0 : int
        Column and row of the image where the crop's top left pixel lies.

    Returns
    -------
    list of ndarray of float32, shape (K, 2)
        One closed polygon per boundary, the first point not repeated, as x, y in image pixels.
        Only corners are listed, so K is even and sides alternate between horizontal and
        vertical. The mask lies to the right of the direction of travel: on the screen outer
        boundaries run clockwise and holes counter-clockwise, and the signed areas (shoelace
        formula, ``sum(x[i] * y[i + 1] - x[i + 1] * y[i]) / 2``) add up to the pixel count.
        Pixels that touch only at a corner belong to different outlines. The order is that of
        each polygon's topmost, leftmost corner.

    Notes
    -----
    No pixel and no corner is visited one by one. The corners are the grid points around which
    an odd number of pixels, or two diagonal ones, are set. Along a grid line they pair up to
    the sides of the polygons; sides are joined end to start by sorting, and the cycles are
    ordered by pointer jumping (Wyllie 1979), in O(K log K).
    """
    height, width = crop.shape
    stride = width + 2
    padded = np.zeros((height + 2, stride), np.bool_)
    padded[1:-1, 1:-1] = crop
    # Grid point n is the bottom right corner of padded pixel n, everything flat: the empty
    # margin keeps rows apart. Around it lie pixels n, n + 1, n + stride and n + stride + 1.
    flat = padded.reshape(-1)
    across = flat[:-1] ^ flat[1:]
    above, below = across[:-stride], across[stride:]
    crossing = above & below
    crossing &= flat[: -stride - 1] ^ flat[stride:-1]
    corners = np.flatnonzero((above ^ below) | crossing)
    if not len(corners):
        return []
    # At a crossing two outlines meet, and each of them has its corner there.
    corners = np.repeat(corners, 1 + crossing[corners])
    rows, columns = np.divmod(corners, stride)

    # Horizontal sides: corners in reading order, two by two. The mask is below a side that
    # runs right and above one that runs left.
    side_rows, side_from, side_to = rows[0::2], columns[0::2], columns[1::2]
    leftward = ~flat[corners[0::2] + (stride + 1)]
    start = np.where(leftward, side_to, side_from)
    end = np.where(leftward, side_from, side_to)
    # Vertical sides: the same by columns. The mask is left of a side that runs down.
    by_column = np.argsort(columns, kind="stable")
    upper = by_column[0::2]
    rise_columns, rise_from, rise_to = columns[upper], rows[upper], rows[by_column[1::2]]
    upward = flat[corners[upper] + (stride + 1)]
    rise_start = np.where(upward, rise_to, rise_from)
    rise_end = np.where(upward, rise_from, rise_to)

    # Join the end of each side to the start of the next. At a crossing the turn is to the
    # right, which keeps to the same pixel: rightward to down to leftward to up.
    after_side = _match(
        2 * (side_rows * stride + end) + leftward,
        2 * (rise_start * stride + rise_columns) + upward,
    )
    after_rise = _match(
        2 * (rise_end * stride + rise_columns) + upward,
        2 * (side_rows * stride + start) + ~leftward,
    )
    successor = after_rise[after_side]

    order, sizes = _cycles(successor)
    points = np.empty((len(order), 2, 2), np.float32)
    points[:, 0, 0] = start[order] + x0
    points[:, 1, 0] = end[order] + x0
    points[:, :, 1] = (side_rows[order] + y0)[:, None]
    return np.split(points.reshape(-1, 2), 2 * np.cumsum(sizes)[:-1])


def _match(ends: Ints, starts: Ints) -> Ints:
    """Return for each end the index of the start with the same key; keys are unique."""
    found = np.empty(len(ends), np.int64)
    found[np.argsort(ends)] = np.argsort(starts)
    return found


def _cycles(successor: Ints) -> tuple[Ints, Ints]:
    """Return the elements of a permutation cycle by cycle, and the length of each cycle.

    Cycles come by their lowest element, and each starts with it.
    """
    label = np.arange(len(successor))
    hop = successor
    while True:
        # `label` is the lowest of the next 2, 4, 8 ... elements.
        lower = np.minimum(label, label[hop])
        if np.array_equal(lower, label):
            break
        label, hop = lower, hop[hop]
    elements = np.arange(len(successor))
    root = label == elements
    # Steps to the element just before the root, by jumps of doubling length.
    hop = np.where(root[successor], elements, successor)
    distance = (hop != elements).astype(np.int64)
    while not np.array_equal(hop, further := hop[hop]):
        distance += distance[hop]
        hop = further
    order = np.lexsort((-distance, label))
    return order, np.diff(np.flatnonzero(root[order]), append=len(order))
