"""Loss functions; each returns one scalar."""

from __future__ import annotations

import tensorflow as tf

from . import boxes_tf as bx


def _bce(target, logits):
    return tf.nn.sigmoid_cross_entropy_with_logits(target, logits)


def quality_focal(logits, quality, weight, normaliser, beta: float = 2.0):
    """Quality focal loss (Li et al. 2020): the score learns the box's IoU.

    Parameters
    ----------
    logits, quality, weight : same shape; quality in [0, 1], 0 for background
    normaliser : scalar, usually the number of positives
    """
    gap = tf.abs(quality - tf.sigmoid(logits))
    return tf.reduce_sum(_bce(quality, logits) * gap**beta * weight) / normaliser


def box_giou(predicted, target, weight, normaliser):
    """1 - GIoU, weighted."""
    return tf.reduce_sum((1.0 - bx.giou(predicted, target)) * weight) / normaliser


def class_quality(logits, quality, weight):
    """Sigmoid cross-entropy of class scores against soft IoU targets, mean over RoIs.

    Parameters
    ----------
    logits, quality : (R, C)
    weight : (R, C), 0 where the class is unlabelled in that image
    """
    rois = tf.reduce_sum(tf.reduce_max(weight, -1))
    return tf.reduce_sum(_bce(quality, logits) * weight) / tf.maximum(rois, 1.0)


def mask_bce_dice(logits, target, weight):
    """Binary cross-entropy plus half the dice loss (Milletari et al. 2016) per instance.

    Parameters
    ----------
    logits, target : (R, S, S); target in [0, 1]
    weight : (R,)
    """
    count = tf.maximum(tf.reduce_sum(weight), 1.0)
    bce = tf.reduce_mean(_bce(target, logits), axis=(1, 2))
    p = tf.sigmoid(logits)
    overlap = tf.reduce_sum(p * target, axis=(1, 2))
    total = tf.reduce_sum(p * p, axis=(1, 2)) + tf.reduce_sum(target * target, axis=(1, 2))
    dice = 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)
    return tf.reduce_sum((bce + 0.5 * dice) * weight) / count
