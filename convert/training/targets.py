"""Which anchor and which RoI learns what: assignment of anchors, sampling of RoIs."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from . import boxes_tf as bx
from .distribution import image_noise


class AnchorTargets(NamedTuple):
    """Per anchor: matched object, positive flag, weight as a negative."""

    matched: tf.Tensor  # (B, A) int32 index of the object
    positive: tf.Tensor  # (B, A) bool
    negative: tf.Tensor  # (B, A) float32 0/1


class RoISample(NamedTuple):
    """Fixed-size sample of regions for the second stage."""

    boxes: tf.Tensor  # (B, R, 4)
    matched: tf.Tensor  # (B, R) int32
    positive: tf.Tensor  # (B, R) float32 0/1
    weight: tf.Tensor  # (B, R) float32 0/1, 0 for padding


def _ignored(boxes, ignore):
    """(B, N, 4), (B, K, 4) → (B, N) bool: mostly inside an ignore region."""
    return tf.reduce_max(bx.pairwise_ioa(boxes, ignore), axis=-1) > 0.5


def assign_anchors(
    anchors, level_sizes: list[int], boxes, valid, ignore, exhaustive, candidates: int = 9
) -> AnchorTargets:
    """Adaptive training sample selection (Zhang et al. 2020).

    For every object the ``candidates`` anchors nearest to its centre are taken
    on each level; those whose IoU exceeds mean + standard deviation of the
    candidates' IoU, and whose centre lies inside the object, are positive. An
    anchor claimed by several objects goes to the one with the highest IoU.

    Parameters
    ----------
    anchors : (A, 4) float32
    level_sizes : anchors per level, summing to A
    boxes : (B, G, 4) float32
    valid : (B, G) float32
    ignore : (B, K, 4) float32 regions where nothing is learnt as background
    exhaustive : (B,) float32; 0 means unlabelled objects may exist: no negatives
    """
    iou = bx.pairwise_iou(boxes, anchors[None])  # (B, G, A)
    centre = 0.5 * (anchors[:, :2] + anchors[:, 2:])
    object_centre = 0.5 * (boxes[..., :2] + boxes[..., 2:])
    distance = tf.reduce_sum(tf.square(object_centre[:, :, None] - centre), -1)
    near = []
    for part in tf.split(distance, level_sizes, axis=-1):
        k = min(candidates, part.shape[-1])
        kth = -tf.math.top_k(-part, k).values[..., -1:]
        near.append(part <= kth)
    near_f = tf.cast(tf.concat(near, axis=-1), tf.float32)
    count = tf.reduce_sum(near_f, -1, keepdims=True)
    mean = tf.reduce_sum(iou * near_f, -1, keepdims=True) / count
    variance = tf.reduce_sum(tf.square(iou - mean) * near_f, -1, keepdims=True) / count
    x, y = centre[:, 0], centre[:, 1]
    inside = (
        (x > boxes[..., 0:1]) & (x < boxes[..., 2:3]) & (y > boxes[..., 1:2]) & (y < boxes[..., 3:])
    )
    chosen = (near_f > 0) & inside & (iou >= mean + tf.sqrt(variance)) & (valid[..., None] > 0)
    # Small objects may cover no anchor centre at all: they keep their single best anchor.
    best = iou >= tf.reduce_max(iou, -1, keepdims=True)
    lonely = ~tf.reduce_any(chosen, -1, keepdims=True) & (valid[..., None] > 0)
    chosen |= lonely & best & (iou > 0)
    return _targets(anchors, chosen, iou, ignore, exhaustive)


def assign_by_iou(
    anchors, boxes, valid, ignore, exhaustive, low: float = 0.3, high: float = 0.7
) -> AnchorTargets:
    """Assignment of Faster R-CNN (Ren et al. 2015), for anchors of many shapes on one level.

    Positive: IoU ≥ ``high`` with an object, or the best anchor of an object. Negative: IoU below
    ``low`` with all objects. The others learn nothing.

    Parameters
    ----------
    anchors, boxes, valid, ignore, exhaustive : as in :func:`assign_anchors`
    """
    iou = bx.pairwise_iou(boxes, anchors[None]) * valid[..., None]  # (B, G, A)
    best = iou >= tf.reduce_max(iou, -1, keepdims=True)
    targets = _targets(anchors, (iou >= high) | (best & (iou > 0)), iou, ignore, exhaustive)
    far = tf.cast(tf.reduce_max(iou, axis=1) < low, tf.float32)
    return targets._replace(negative=targets.negative * far)


def _targets(anchors, chosen, iou, ignore, exhaustive) -> AnchorTargets:
    """Give each anchor the best of the objects that chose it, (B, G, A)."""
    score = tf.where(chosen, iou, -1.0)
    matched = tf.argmax(score, axis=1, output_type=tf.int32)
    positive = tf.reduce_max(score, axis=1) >= 0
    tiled = tf.broadcast_to(anchors[None], (tf.shape(iou)[0], *anchors.shape))
    negative = ~positive & ~_ignored(tiled, ignore) & (exhaustive[:, None] > 0)
    return AnchorTargets(matched, positive, tf.cast(negative, tf.float32))


def _jitter(boxes, seed, image_size: float, strength: float = 0.12):
    """Shift every edge by up to ``strength`` of the side: a perfect box teaches no refinement.

    Clipped to the image, as proposals are: RoIAlign is defined for boxes inside it.
    """
    size = tf.tile(boxes[..., 2:] - boxes[..., :2], [1, 1, 2])
    noise = image_noise(tf.shape(boxes), seed, -strength, strength)
    return bx.clip(boxes + noise * size, image_size, image_size)


def sample_rois(
    proposals,
    boxes,
    valid,
    ignore,
    exhaustive,
    image_size: float,
    count: int,
    max_positive: int,
    seed,
) -> RoISample:
    """Draw ``count`` regions per image from proposals and slightly moved objects.

    Positive: IoU ≥ 0.5 with an object. At most ``max_positive`` of them, the
    rest negatives; where too few exist the remaining slots get weight 0.

    Parameters
    ----------
    proposals : (B, P, 4) float32; all-zero rows are padding
    boxes, valid, ignore, exhaustive : as in :func:`assign_anchors`
    image_size : side of the square input in pixels
    seed : (2,) int32 for the stateless generator
    """
    rois = tf.concat([proposals, _jitter(boxes, seed + 7, image_size)], axis=1)
    real = bx.area(rois) > 1.0
    iou = bx.pairwise_iou(rois, boxes) * valid[:, None]
    matched = tf.argmax(iou, -1, output_type=tf.int32)
    positive = (tf.reduce_max(iou, -1) >= 0.5) & real
    negative = ~positive & real & ~_ignored(rois, ignore) & (exhaustive[:, None] > 0)
    noise = image_noise(tf.shape(positive), seed)
    order = tf.where(positive, noise, -1.0)
    kth = tf.math.top_k(order, max_positive).values[:, -1:]
    kept = positive & (order >= kth)
    rank = tf.where(kept, 2.0 + noise, tf.where(negative, 1.0 + noise, 0.0))
    chosen = tf.math.top_k(rank, count)

    def take(x):
        return tf.gather(x, chosen.indices, batch_dims=1)

    return RoISample(
        take(rois),
        take(matched),
        tf.cast(chosen.values >= 2.0, tf.float32),
        tf.cast(chosen.values >= 1.0, tf.float32),
    )


def head_rois(sample: RoISample, refined, boxes, usable, image_size: float, count: int, seed):
    """Draw positive regions for a head that runs on detections.

    At run time such a head sees refined boxes; half of the regions are those, where the refined
    box still has IoU ≥ 0.5 with its object, and half are proposals.

    Parameters
    ----------
    sample : RoISample
    refined : (B·R, 4) float32, the sample's boxes after refinement
    boxes : (B, G, 4) float32, the objects
    usable : (B, G) float32 0/1, objects that teach this head
    image_size : side of the square input in pixels
    count : regions per image, C
    seed : (2,) int32; seed + 1 is used too

    Returns
    -------
    boxes : (B, C, 4), without a gradient
    matched : (B, C) int32 index of the object
    weight : (B, C) float32 0/1, 0 where there are too few; the box is a harmless one then
    """
    batch = tf.shape(sample.boxes)[0]
    refined = bx.clip(tf.stop_gradient(tf.reshape(refined, (batch, -1, 4))), image_size, image_size)
    target = tf.gather(boxes, sample.matched, batch_dims=1)
    noise = image_noise(tf.shape(sample.positive), seed)
    use_refined = (noise < 0.5) & (bx.iou(refined, target) >= 0.5)
    rois = tf.where(use_refined[..., None], refined, sample.boxes)
    fit = tf.gather(usable, sample.matched, batch_dims=1) * sample.positive
    chosen = tf.math.top_k(fit * (1.0 + image_noise(tf.shape(fit), seed + 1)), count)
    weight = tf.cast(chosen.values >= 1.0, tf.float32)
    rois = tf.gather(rois, chosen.indices, batch_dims=1)
    rois = tf.where(weight[..., None] > 0, rois, tf.constant([0.0, 0.0, 32.0, 32.0]))
    return rois, tf.gather(sample.matched, chosen.indices, batch_dims=1), weight


def heatmaps(keypoints, boxes, size: int, sigma: float):
    """Where each keypoint lies in the heatmap of its region.

    Parameters
    ----------
    keypoints : (N, K, 3) float32, x, y in pixels and visibility
    boxes : (N, 4) float32
    size : cells of a heatmap's side, S
    sigma : of the Gaussian in cells; 0 gives the cell that holds the keypoint

    Returns
    -------
    target : (N, S, S, K) float32, summing to 1 over the cells
    weight : (N, K) float32 0/1, 0 for a keypoint that is not labelled or outside of its region
    """
    extent = tf.maximum(boxes[:, None, 2:] - boxes[:, None, :2], 1e-3)
    place = (keypoints[..., :2] - boxes[:, None, :2]) / extent * size
    inside = tf.reduce_all((place >= 0) & (place < size), -1) & (keypoints[..., 2] > 0)
    if sigma > 0:
        centres = tf.range(size, dtype=tf.float32)[:, None, None] + 0.5
        gap = (centres - tf.transpose(place, (2, 0, 1))[:, None]) / sigma  # (2, S, N, K)
        axes = tf.nn.softmax(-0.5 * gap**2, axis=1)
    else:
        cell = tf.cast(tf.floor(tf.transpose(place, (2, 0, 1))), tf.int32)
        axes = tf.one_hot(cell, size, axis=1)
    return tf.einsum("xnk,ynk->nyxk", axes[0], axes[1]), tf.cast(inside, tf.float32)
