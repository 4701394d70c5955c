"""Loss functions; each returns one scalar.

Counts are those of all replicas (:func:`.distribution.total`), so that the replicas' losses add up
to that of the whole batch.
"""

from __future__ import annotations

import tensorflow as tf

from . import boxes_tf as bx
from .distribution import total


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
    rois = total(tf.reduce_sum(tf.reduce_max(weight, -1)))
    return tf.reduce_sum(_bce(quality, logits) * weight) / tf.maximum(rois, 1.0)


def class_softmax(logits, label, positive, labeled, weight):
    """Softmax cross-entropy of class scores, mean over RoIs.

    A region without an object is the background or something that is not labelled in its image:
    the loss is that of the sum of these.

    Parameters
    ----------
    logits : (R, 1 + C), the background first
    label : (R,) int32, column of the class among the C
    positive : (R,) 1 where the region has an object, else 0
    labeled : (R, C), 0 where the class is unlabelled in that image
    weight : (R,)
    """
    own = tf.one_hot(label + 1, logits.shape[-1])
    none = tf.concat([tf.ones_like(labeled[:, :1]), 1.0 - labeled], -1)
    possible = tf.where(positive[:, None] > 0, own, none) > 0
    share = tf.reduce_logsumexp(tf.where(possible, logits, -1e9), -1)
    cross = tf.reduce_logsumexp(logits, -1) - share
    return tf.reduce_sum(cross * weight) / tf.maximum(total(tf.reduce_sum(weight)), 1.0)


def mask_bce_dice(logits, target, weight):
    """Binary cross-entropy plus half the dice loss (Milletari et al. 2016) per instance.

    Parameters
    ----------
    logits, target : (R, S, S); target in [0, 1]
    weight : (R,)
    """
    count = tf.maximum(total(tf.reduce_sum(weight)), 1.0)
    bce = tf.reduce_mean(_bce(target, logits), axis=(1, 2))
    p = tf.sigmoid(logits)
    overlap = tf.reduce_sum(p * target, axis=(1, 2))
    both = tf.reduce_sum(p * p, axis=(1, 2)) + tf.reduce_sum(target * target, axis=(1, 2))
    dice = 1.0 - (2.0 * overlap + 1.0) / (both + 1.0)
    return tf.reduce_sum((bce + 0.5 * dice) * weight) / count


def heatmap_cross_entropy(logits, target, weight):
    """Cross-entropy over the cells of each heatmap, mean over keypoints (He et al. 2017).

    Parameters
    ----------
    logits, target : (R, S, S, K); target sums to 1 over the cells
    weight : (R, K)
    """
    cells = tf.reshape(logits, (tf.shape(logits)[0], -1, logits.shape[-1]))
    log_share = cells - tf.reduce_logsumexp(cells, axis=1, keepdims=True)
    entropy = -tf.reduce_sum(tf.reshape(target, tf.shape(cells)) * log_share, axis=1)
    count = tf.maximum(total(tf.reduce_sum(weight)), 1.0)
    return tf.reduce_sum(entropy * weight) / count
