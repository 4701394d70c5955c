"""Rotation of a photograph with all that is known about it: tilted cameras, leaning people."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from PIL import Image

from .bitmaps import MASK_SIZE
from .dataset import Record

GREY = (128, 128, 128)  # as beyond the edge of a photograph
LEAST_SIDE = 1.0  # pixels of an object that are left inside the image


def rotate_record(record: Record, image: Image.Image, degrees: float) -> tuple[Record, Image.Image]:
    """Turn a photograph about its middle, on a canvas of the same size.

    Boxes are drawn anew around the turned masks. An object without a mask is taken for an
    ellipse that fills its box: around a square's corners it would be a quarter wider at 20 degrees.
    What leaves the canvas is cut off or dropped.

    Parameters
    ----------
    record : Record
    image : RGB PIL image of `record`
    degrees : float
        Clockwise, as seen.

    Returns
    -------
    (Record, PIL image)
        New ones; the arguments are not changed.
    """
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre = np.array([record.width / 2, record.height / 2])
    edge = np.array([record.width, record.height] * 2, np.float64)
    picture = image.transform(
        image.size, Image.Transform.AFFINE, _affine(turn.T, centre - turn.T @ centre),
        Image.Resampling.BILINEAR, fillcolor=GREY,
    )  # fmt: skip

    outlines = [
        _mask_outline(bitmap, box) if has else _ellipse_outline(box)
        for bitmap, box, has in zip(record.bitmaps, record.boxes, record.has_mask, strict=True)
    ]
    boxes = _bounds(outlines, turn, centre, edge)
    kept = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(1))
    boxes = boxes[kept]
    bitmaps = [
        _turn_bitmap(record.bitmaps[row], record.boxes[row], box, turn, centre)
        for row, box in zip(kept, boxes, strict=True)
    ]
    points = record.keypoints[kept].copy()
    points[..., :2] = (points[..., :2] - centre) @ turn.T + centre
    inside = ((points[..., :2] >= 0) & (points[..., :2] < edge[:2])).all(-1)
    points[~inside | (points[..., 2] == 0)] = 0
    ignore = _bounds([_corners(box) for box in record.ignore], turn, centre, edge)
    ignore = ignore[(ignore[:, 2:] > ignore[:, :2]).all(1)]
    turned = dataclasses.replace(
        record,
        boxes=boxes.astype(np.float32),
        labels=record.labels[kept],
        bitmaps=np.stack(bitmaps) if bitmaps else record.bitmaps[:0],
        has_mask=record.has_mask[kept],
        keypoints=points,
        ignore=ignore.astype(np.float32),
    )
    return turned, picture


def _affine(matrix: np.ndarray, shift: np.ndarray) -> tuple[float, ...]:
    """Coefficients with which Pillow finds the source of a point of the result."""
    (a, b), (d, e) = matrix.tolist()
    return (a, b, float(shift[0]), d, e, float(shift[1]))


def _corners(box: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = box.tolist()
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _ellipse_outline(box: np.ndarray) -> np.ndarray:
    """Points (64, 2) on the ellipse that fills a box."""
    middle, radii = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    around = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    return middle + radii * np.stack([np.cos(around), np.sin(around)], 1)


def _mask_outline(bitmap: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Points (N, 2) between which a mask lies: the ends of each of its rows."""
    rows, columns = np.nonzero(bitmap >= 128)
    if not len(rows):
        return _ellipse_outline(box)
    lines, first = np.unique(rows, return_index=True)
    last = np.append(first[1:], len(rows)) - 1
    left, right = columns[first], columns[last] + 1
    cells = np.concatenate([np.stack([x, y], 1) for x in (left, right) for y in (lines, lines + 1)])
    return box[:2] + cells / MASK_SIZE * (box[2:] - box[:2])


def _bounds(
    outlines: list[np.ndarray], turn: np.ndarray, centre: np.ndarray, edge: np.ndarray
) -> np.ndarray:
    """Boxes (N, 4) around turned points, cut at the image's edge."""
    boxes = np.zeros((len(outlines), 4))
    for box, outline in zip(boxes, outlines, strict=True):
        points = (outline - centre) @ turn.T + centre
        box[:2], box[2:] = points.min(0), points.max(0)
    return np.clip(boxes, 0, edge)


def _turn_bitmap(
    bitmap: np.ndarray, old: np.ndarray, new: np.ndarray, turn: np.ndarray, centre: np.ndarray
) -> np.ndarray:
    """The bitmap in the turned object's box, from the one in the old box."""
    old_size, new_size = old[2:] - old[:2], new[2:] - new[:2]
    # cell of the new box → pixel → pixel before the turn → cell of the old box
    matrix = turn.T * new_size[None] / old_size[:, None]
    shift = (turn.T @ (new[:2] - centre) + centre - old[:2]) / old_size * MASK_SIZE
    turned = Image.fromarray(bitmap).transform(
        (MASK_SIZE, MASK_SIZE), Image.Transform.AFFINE, _affine(matrix, shift),
        Image.Resampling.BILINEAR, fillcolor=0,
    )  # fmt: skip
    return np.asarray(turned)
