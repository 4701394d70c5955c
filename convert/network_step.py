"""One training step of the two-stage network: forward pass, targets, losses."""

from __future__ import annotations

import tensorflow as tf

from edgemask.anchors import pyramid_anchors

from . import boxes_tf as bx
from . import losses
from .arch.model import FEATURE_STRIDES, RPN_LEVELS, RPN_STRIDES, MaskRCNN
from .config import Config
from .roi_tf import crop_bitmaps, roi_align
from .targets import assign_anchors, sample_rois


def propose(logits, deltas, anchors, image_size: int, count: int, threshold: float):
    """Decode, clip and NMS the RPN's outputs.

    Parameters
    ----------
    logits : (B, A)
    deltas : (B, A, 4)
    anchors : (A, 4)
    image_size : side of the square input in pixels
    count : proposals per image, P
    threshold : IoU threshold of the NMS

    Returns
    -------
    boxes : (B, A, 4), differentiable
    proposals : (B, P, 4), without a gradient, padded with zeros
    """
    decoded = bx.decode(deltas, anchors, [1.0] * 4)
    clipped = bx.clip(tf.stop_gradient(decoded), image_size, image_size)
    yxyx = tf.gather(clipped, [1, 0, 3, 2], axis=-1)
    kept = tf.image.combined_non_max_suppression(
        yxyx[:, :, None], tf.sigmoid(tf.stop_gradient(logits))[..., None],
        count, count, threshold, 0.0, clip_boxes=False,
    )  # fmt: skip
    return decoded, tf.gather(kept.nmsed_boxes, [1, 0, 3, 2], axis=-1)


class StepLosses:
    """Computes the losses of one batch for a :class:`MaskRCNN`.

    Parameters
    ----------
    model : MaskRCNN
    config : Config
        Crop size, loss weights and sampling numbers are read from it.
    """

    def __init__(self, model: MaskRCNN, config: Config):
        self.model = model
        self.config = config
        size = config.augment.crop
        shapes = [(-(-size // s), -(-size // s)) for s in RPN_STRIDES]
        self.anchors = tf.constant(
            pyramid_anchors(
                tuple(shapes),
                RPN_STRIDES,
                model.anchor_sizes,
                tuple(config.model.rpn.anchor_ratios),
            )
        )
        ratios = len(config.model.rpn.anchor_ratios)
        self.level_sizes = [h * w * ratios for h, w in shapes]

    def _pool(self, pyramid, head, rois):
        return roi_align(
            [pyramid[name] for name in head.features],
            [FEATURE_STRIDES[name] for name in head.features],
            head.level_thresholds, rois, head.output_size, head.sampling_ratio,
        )  # fmt: skip

    def __call__(self, batch: dict[str, tf.Tensor], seed, training: bool = True):
        """Losses of one batch from :func:`loader.batches`.

        Parameters
        ----------
        batch : dict of tensors
        seed : (2,) int32, makes RoI sampling repeatable

        Returns
        -------
        dict of scalar losses; ``total`` is their weighted sum.
        """
        cfg, t = self.config, self.config.train
        image = (tf.cast(batch["image"], tf.float32) - 128.0) / 128.0
        out = self.model.first_stage(image, training=training)
        b = tf.shape(image)[0]
        logits = tf.concat([tf.reshape(out[f"rpn_logits_{v}"], (b, -1)) for v in RPN_LEVELS], 1)
        deltas = tf.concat([tf.reshape(out[f"rpn_deltas_{v}"], (b, -1, 4)) for v in RPN_LEVELS], 1)
        boxes, valid = batch["boxes"], batch["valid"]
        ignore, exhaustive = batch["ignore"], batch["exhaustive"]
        # Background is certain only where every class of the model is labelled.
        certain = exhaustive * tf.reduce_min(batch["labeled"], -1)

        decoded, proposals = propose(
            logits, deltas, self.anchors, cfg.augment.crop, t.proposals, cfg.model.rpn.nms_threshold
        )
        anchor = assign_anchors(self.anchors, self.level_sizes, boxes, valid, ignore, certain)
        matched_box = tf.gather(boxes, anchor.matched, batch_dims=1)
        positive = tf.cast(anchor.positive, tf.float32)
        quality = tf.stop_gradient(bx.iou(decoded, matched_box)) * positive
        count = tf.maximum(tf.reduce_sum(positive), 1.0)
        loss = {
            "rpn_class": losses.quality_focal(logits, quality, positive + anchor.negative, count),
            "rpn_box": losses.box_giou(decoded, matched_box, positive, count),
        }

        sample = sample_rois(
            proposals, boxes, valid, ignore, exhaustive, cfg.augment.crop,
            t.rois_per_image, t.positive_rois, seed,
        )  # fmt: skip
        loss |= self._second_stage(out, batch, sample, seed, training)
        weights = {
            "rpn_class": t.weight_rpn_class, "rpn_box": t.weight_rpn_box,
            "class": t.weight_class, "box": t.weight_box, "mask": t.weight_mask,
        }  # fmt: skip
        loss["total"] = tf.add_n([weights[k] * v for k, v in loss.items()])
        return loss

    def _second_stage(self, pyramid, batch, sample, seed, training):
        cfg, t = self.config.model, self.config.train
        features = self._pool(pyramid, cfg.box_head, sample.boxes)
        head = self.model.box_head(features, training=training)
        rois = tf.reshape(sample.boxes, (-1, 4))
        positive = tf.reshape(sample.positive, (-1,))
        matched = tf.gather(batch["boxes"], sample.matched, batch_dims=1)
        target = tf.reshape(matched, (-1, 4))
        refined = bx.decode(head["deltas"], rois, cfg.box_head.box_weights)
        count = tf.maximum(tf.reduce_sum(positive), 1.0)

        quality = tf.stop_gradient(bx.iou(refined, target)) * positive
        label = tf.reshape(tf.gather(batch["labels"], sample.matched, batch_dims=1), (-1,))
        classes = len(cfg.classes)
        one_hot = tf.one_hot(label, classes)
        known = tf.repeat(batch["labeled"], t.rois_per_image, axis=0)
        weight = tf.reshape(sample.weight, (-1, 1)) * tf.maximum(known, one_hot * positive[:, None])
        loss = {
            "class": losses.class_quality(head["logits"], one_hot * quality[:, None], weight),
            "box": losses.box_giou(refined, target, positive, count),
        }
        loss["mask"] = self._mask_loss(pyramid, batch, sample, refined, seed, training)
        return loss

    def _mask_loss(self, pyramid, batch, sample, refined, seed, training):
        """Masks learn on refined boxes and proposals alike: at run time they see refined ones."""
        cfg, t = self.config.model, self.config.train
        size = float(self.config.augment.crop)
        b = tf.shape(sample.boxes)[0]
        refined = tf.reshape(tf.stop_gradient(refined), (b, -1, 4))
        refined = bx.clip(refined, size, size)
        matched = tf.gather(batch["boxes"], sample.matched, batch_dims=1)
        noise = tf.random.stateless_uniform(tf.shape(sample.positive), seed + 1)
        use_refined = (noise < 0.5) & (bx.iou(refined, matched) >= 0.5)
        boxes = tf.where(use_refined[..., None], refined, sample.boxes)

        has_mask = tf.gather(batch["has_mask"], sample.matched, batch_dims=1) * sample.positive
        rank = has_mask * (1.0 + tf.random.stateless_uniform(tf.shape(has_mask), seed + 2))
        chosen = tf.math.top_k(rank, t.mask_rois)
        weight = tf.reshape(tf.cast(chosen.values >= 1.0, tf.float32), (-1,))
        boxes = tf.gather(boxes, chosen.indices, batch_dims=1)
        matched = tf.gather(sample.matched, chosen.indices, batch_dims=1)
        # Empty slots would be degenerate boxes; a harmless one keeps shapes static.
        empty = tf.reshape(weight, (b, -1, 1)) == 0
        boxes = tf.where(empty, tf.constant([0.0, 0.0, 32.0, 32.0]), boxes)

        features = self._pool(pyramid, cfg.mask_head, boxes)
        logits = self.model.mask_head(features, training=training)["logits"]
        if cfg.mask_head.class_agnostic:
            logits = logits[..., 0]
        else:
            label = tf.gather(batch["labels"], matched, batch_dims=1)
            pick = tf.one_hot(tf.reshape(label, (-1,)), len(cfg.classes))
            logits = tf.reduce_sum(logits * pick[:, None, None], -1)
        bitmaps = tf.gather(batch["bitmaps"], matched, batch_dims=1)
        side = bitmaps.shape[-1]
        bitmaps = tf.cast(tf.reshape(bitmaps, (-1, side, side)), tf.float32) / 255.0
        full = tf.reshape(tf.gather(batch["full_boxes"], matched, batch_dims=1), (-1, 4))
        target = crop_bitmaps(bitmaps, full, tf.reshape(boxes, (-1, 4)), logits.shape[1])
        return losses.mask_bce_dice(logits, target, weight)
