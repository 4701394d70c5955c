"""RoIAlign in TensorFlow for training, equal to ``edgemask.roi_align``.

All pyramid levels of an image are packed into one canvas and every RoI is read
with a single ``crop_and_resize``: one fast kernel with a gradient, whatever the
mix of levels.
"""

from __future__ import annotations

import tensorflow as tf

from . import boxes_tf as bx


def assign_levels(boxes, thresholds: list[float]):
    """(..., 4) → (...) int32: how many thresholds sqrt(area) reaches."""
    side = tf.sqrt(bx.area(boxes))
    level = tf.zeros_like(side, tf.int32)
    for threshold in thresholds:
        level += tf.cast(side >= threshold, tf.int32)
    return level


def _sample(canvas, start, step, image_index, count: int):
    """Bilinear samples at start + i·step (pixel indices, y x), i = 0..count-1."""
    size = tf.cast(tf.shape(canvas)[1:3] - 1, tf.float32)
    stop = start + step * (count - 1)
    region = tf.concat([start / size, stop / size], axis=-1)
    return tf.image.crop_and_resize(canvas, region, image_index, [count, count])


def crop_bitmaps(bitmaps, full_boxes, rois, size: int):
    """Mask targets: the part of each object's bitmap under its RoI.

    Parameters
    ----------
    bitmaps : (N, M, M) float32 in [0, 1], coverage inside ``full_boxes``
    full_boxes, rois : (N, 4) float32
    size : int

    Returns
    -------
    (N, size, size) float32 coverage of each RoI cell, 0 outside the object's box.
    """
    m = bitmaps.shape[-1]
    padded = tf.pad(bitmaps, [[0, 0], [1, 1], [1, 1]])[..., None]
    extent = tf.maximum(full_boxes[:, 2:] - full_boxes[:, :2], 1e-3)
    low = (rois[:, :2] - full_boxes[:, :2]) / extent * m
    high = (rois[:, 2:] - full_boxes[:, :2]) / extent * m
    fine = 2 * size  # two samples a cell and axis: area coverage without aliasing
    step = (high - low) / fine
    start = low + 0.5 * step - 0.5 + 1.0  # +1: the padding
    index = tf.range(tf.shape(rois)[0])
    samples = _sample(padded, start[:, ::-1], step[:, ::-1], index, fine)
    return tf.nn.avg_pool2d(samples, 2, 2, "VALID")[..., 0]


def roi_align(levels, strides: list[int], thresholds: list[float], rois, size: int, ratio: int):
    """RoIAlign (He et al. 2017, aligned=True) over several levels at once.

    Parameters
    ----------
    levels : list of (B, H, W, C) float32
    strides : pixels of the input per cell, one per level
    thresholds : len(levels) - 1 side lengths where the next level takes over
    rois : (B, R, 4) float32, inside the image
    size, ratio : output side, samples per bin and axis

    Returns
    -------
    (B·R, size, size, C) float32
    """
    batch, count = tf.shape(rois)[0], tf.shape(rois)[1]
    # One column of levels, each with a replicated border so that samples up to
    # half a cell outside read the edge value, as RoIAlign defines.
    padded, tops, top = [], [], 0
    width = max(level.shape[2] for level in levels) + 2
    for level in levels:
        x = tf.concat([level[:, :1], level, level[:, -1:]], 1)
        x = tf.concat([x[:, :, :1], x, x[:, :, -1:]], 2)
        padded.append(tf.pad(x, [[0, 0], [0, 0], [0, width - x.shape[2]], [0, 0]]))
        tops.append(float(top))
        top += x.shape[1]
    canvas = tf.concat(padded, 1)
    flat = tf.reshape(rois, (-1, 4))
    level = assign_levels(flat, thresholds)
    stride = tf.gather(tf.constant(strides, tf.float32), level)[:, None]
    offset = tf.gather(tf.constant(tops, tf.float32), level)
    low, high = flat[:, :2] / stride, flat[:, 2:] / stride
    fine = size * ratio
    step = (high - low) / fine
    start = low + 0.5 * step - 0.5 + 1.0
    start += tf.stack([tf.zeros_like(offset), offset], -1)
    image_index = tf.repeat(tf.range(batch), count)
    samples = _sample(canvas, start[:, ::-1], step[:, ::-1], image_index, fine)
    return tf.nn.avg_pool2d(samples, ratio, ratio, "VALID") if ratio > 1 else samples
