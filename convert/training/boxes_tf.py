"""Box geometry in TensorFlow, for training; the same definitions as ``edgemask.boxes``.

All functions take boxes (..., 4) float32 as x0 y0 x1 y1 and broadcast over
leading dimensions. The tests compare them with the NumPy versions.
"""

from __future__ import annotations

import math

import tensorflow as tf

MAX_LOG_SCALE = math.log(1000.0 / 16)


def area(boxes):
    """(..., 4) → (...) area, 0 for degenerate boxes."""
    size = tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return size[..., 0] * size[..., 1]


def _overlap(a, b):
    low = tf.maximum(a[..., :2], b[..., :2])
    high = tf.minimum(a[..., 2:], b[..., 2:])
    size = tf.maximum(high - low, 0.0)
    return size[..., 0] * size[..., 1]


def pairwise_iou(a, b):
    """(..., N, 4) and (..., M, 4) → (..., N, M)."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    inter = _overlap(a, b)
    return inter / tf.maximum(area(a) + area(b) - inter, 1e-6)


def pairwise_ioa(a, b):
    """Intersection over the area of ``a``: (..., N, 4), (..., M, 4) → (..., N, M)."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    return _overlap(a, b) / tf.maximum(area(a), 1e-6)


def giou(a, b):
    """Generalised IoU (Rezatofighi et al. 2019) of aligned boxes, in [-1, 1]."""
    inter = _overlap(a, b)
    union = tf.maximum(area(a) + area(b) - inter, 1e-6)
    low = tf.minimum(a[..., :2], b[..., :2])
    high = tf.maximum(a[..., 2:], b[..., 2:])
    size = tf.maximum(high - low, 0.0)
    hull = tf.maximum(size[..., 0] * size[..., 1], 1e-6)
    return inter / union - (hull - union) / hull


def iou(a, b):
    """IoU of aligned boxes, (..., 4) and (..., 4) → (...)."""
    inter = _overlap(a, b)
    return inter / tf.maximum(area(a) + area(b) - inter, 1e-6)


def decode(deltas, anchors, weights):
    """Box coding of Faster R-CNN (Ren et al. 2015), the inverse of ``edgemask.boxes.encode``."""
    d = deltas / tf.constant(weights, tf.float32)
    size = anchors[..., 2:] - anchors[..., :2]
    centre = anchors[..., :2] + 0.5 * size
    centre += d[..., :2] * size
    half = 0.5 * size * tf.exp(tf.minimum(d[..., 2:], MAX_LOG_SCALE))
    return tf.concat([centre - half, centre + half], axis=-1)


def clip(boxes, height, width):
    """Clip to an image of ``height`` x ``width`` pixels."""
    limit = tf.cast(tf.stack([width, height, width, height]), boxes.dtype)
    return tf.clip_by_value(boxes, 0.0, limit)


def enlarge(boxes, factor: float, height: float, width: float):
    """Scale boxes about their centres and clip them, as ``edgemask.keypoints.enlarge``."""
    grow = (boxes[..., 2:] - boxes[..., :2]) * ((factor - 1) / 2)
    return clip(boxes + tf.concat([-grow, grow], -1), height, width)
