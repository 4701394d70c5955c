"""The straightforward versions of edgemask's kernels: loops over boxes, bins and pixels.

What one writes first, and what benchmarks/kernels.py compares with.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def sample(level: Array, y: float, x: float) -> Any:
    """One bilinear sample of a feature map; the boxes here lie within it."""
    height, width = level.shape[:2]
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    i, j = int(y), int(x)
    below, right = min(i + 1, height - 1), min(j + 1, width - 1)
    v, u = y - i, x - j
    top = (1 - u) * level[i, j] + u * level[i, right]
    bottom = (1 - u) * level[below, j] + u * level[below, right]
    return (1 - v) * top + v * bottom


def plain_roi_align(
    levels: list[Array], boxes: Array, ids: Array, strides: list[int], size: int, ratio: int
) -> Array:
    """RoIAlign with loops over boxes, bins and samples."""
    out = np.zeros((len(boxes), size, size, levels[0].shape[-1]), np.float32)
    for n, (box, level) in enumerate(zip(boxes.tolist(), ids.tolist(), strict=True)):
        x0, y0, x1, y1 = (value / strides[level] - 0.5 for value in box)
        step_x, step_y = (x1 - x0) / (size * ratio), (y1 - y0) / (size * ratio)
        features = levels[level].astype(np.float32)
        for row in range(size * ratio):
            for column in range(size * ratio):
                value = sample(features, y0 + (row + 0.5) * step_y, x0 + (column + 0.5) * step_x)
                out[n, row // ratio, column // ratio] += value
    return out / ratio**2


def plain_nms(
    boxes: Array, scores: Array, threshold: float, limit: int | None = None, classes: Any = None
) -> list[int]:
    """Greedy NMS with two loops, within classes if they are given."""
    corners = boxes.tolist()
    kept: list[int] = []
    labels = [0] * len(corners) if classes is None else classes.tolist()
    for i in sorted(range(len(corners)), key=lambda n: (-scores[n], n)):
        ax0, ay0, ax1, ay1 = corners[i]
        for j in kept:
            bx0, by0, bx1, by1 = corners[j]
            width, height = min(ax1, bx1) - max(ax0, bx0), min(ay1, by1) - max(ay0, by0)
            if labels[i] == labels[j] and width > 0 and height > 0:
                overlap = width * height
                union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - overlap
                if overlap / union > threshold:
                    break
        else:
            kept.append(i)
            if len(kept) == limit:
                break
    return kept


def plain_paste(cells: Array, boxes: Array, height: int, width: int) -> Array:
    """Mask pasting with loops over the pixels of each box; the boxes here are large."""
    out = np.zeros((len(boxes), height, width), bool)
    size = cells.shape[1]
    for n, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        padded = np.pad(cells[n], 1).tolist()
        for row in range(math.floor(y0), min(math.ceil(y1), height)):
            y = (row + 0.5 - y0) / (y1 - y0) * size - 0.5
            i = math.floor(y)
            upper, lower, v = padded[i + 1], padded[i + 2], y - i
            for column in range(math.floor(x0), min(math.ceil(x1), width)):
                x = (column + 0.5 - x0) / (x1 - x0) * size - 0.5
                j = math.floor(x)
                u = x - j
                top = (1 - u) * upper[j + 1] + u * upper[j + 2]
                bottom = (1 - u) * lower[j + 1] + u * lower[j + 2]
                out[n, row, column] = (1 - v) * top + v * bottom >= 0.5
    return out


def plain_top_k(levels: list[Array], params: list[tuple[float, int]], k: int) -> list[int]:
    """Dequantize everything, sort everything."""
    logits: list[float] = []
    for level, (scale, zero_point) in zip(levels, params, strict=True):
        logits += [scale * (q - zero_point) for q in level.reshape(-1).tolist()]
    return sorted(range(len(logits)), key=lambda n: (-logits[n], n))[:k]


def plain_rle(crop: Array, x0: int, y0: int, height: int, width: int) -> bytes:
    """Run lengths of the dense mask, pixel by pixel."""
    dense = np.zeros((height, width), bool)
    dense[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]] = crop
    counts, value = [0], False
    for pixel in dense.T.reshape(-1).tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    text = bytearray()
    for i, count in enumerate(counts):
        rest, more = count - counts[i - 2] if i > 2 else count, True
        while more:
            digit, rest = rest & 0x1F, rest >> 5
            more = rest != (-1 if digit & 0x10 else 0)
            text.append(48 + digit + (0x20 if more else 0))
    return bytes(text)
