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

    Boxes are drawn anew around what the canvas shows of the turned masks. An object without a mask
    is taken for an ellipse that fills its box: around a square's corners it would be a quarter
    wider at 20 degrees. What leaves the canvas is cut off or dropped.

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
        _mask_outlines(bitmap, box) if has else _ellipse_outline(box)
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
    """A box as one outline of four points, (1, 4, 2)."""
    x0, y0, x1, y1 = box.tolist()
    return np.array([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]])


def _ellipse_outline(box: np.ndarray) -> np.ndarray:
    """The ellipse that fills a box as one outline of 64 points, (1, 64, 2)."""
    middle, radii = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    around = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    return middle + radii * np.stack([np.cos(around), np.sin(around)], 1)[None]


def _mask_outlines(bitmap: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Rectangles (N, 4, 2) that are together a mask: the runs of its rows."""
    steps = np.diff(np.pad(bitmap >= 128, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, left = np.nonzero(steps == 1)
    right = np.nonzero(steps == -1)[1]
    if not len(rows):
        return _ellipse_outline(box)
    x, y = np.stack([left, right, right, left], 1), np.stack([rows, rows, rows + 1, rows + 1], 1)
    return box[:2] + np.stack([x, y], 2) / MASK_SIZE * (box[2:] - box[:2])


def _bounds(
    outlines: list[np.ndarray], turn: np.ndarray, centre: np.ndarray, edge: np.ndarray
) -> np.ndarray:
    """Boxes (N, 4) around what lies inside the image of turned outlines; 0 where nothing does."""
    boxes = np.zeros((len(outlines), 4))
    for box, outline in zip(boxes, outlines, strict=True):
        points = _inside((outline - centre) @ turn.T + centre, edge[2:])
        if len(points):
            box[:2], box[2:] = points.min(0), points.max(0)
    return np.clip(boxes, 0, edge)


def _inside(outlines: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Points (M, 2) between which the parts of convex outlines (N, P, 2) inside an image lie."""
    flat = outlines.reshape(-1, 2)
    if ((flat >= 0) & (flat <= size)).all():
        return flat
    start, way = outlines, np.roll(outlines, -1, 1) - outlines
    # The part of each side that is inside (Liang & Barsky 1984): from `enter` to `leave`, 0 to 1.
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = np.stack([-start / way, (size - start) / way])
    parallel = way == 0
    beside = (parallel & ((start < 0) | (start > size))).any(-1)
    enter = np.where(parallel, 0, crossings.min(0)).max(-1).clip(0)
    leave = np.where(parallel, 1, crossings.max(0)).min(-1).clip(None, 1)
    crossing = (enter <= leave) & ~beside
    ends = [(start + way * at[..., None])[crossing] for at in (enter, leave)]
    # A corner of the image is inside of an outline that has it on the same side of all its sides.
    corners = _corners(np.array([0, 0, *size], np.float64))[0]
    gap = corners[:, None, None] - start
    side = way[..., 0] * gap[..., 1] - way[..., 1] * gap[..., 0]
    within = ((side >= 0).all(-1) | (side <= 0).all(-1)).any(-1)
    return np.concatenate([*ends, corners[within]])


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
