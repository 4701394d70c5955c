"""One training step of the two-stage network: forward pass, targets, losses."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from ..arch.layout import anchors_per_cell, network_anchors
from ..arch.model import MaskRCNN
from ..config import Config
from . import boxes_tf as bx
from . import losses
from .distill import Distillation, own_deltas, own_masks
from .distribution import total
from .hint import Hint
from .roi_tf import crop_bitmaps, roi_align
from .targets import assign_anchors, assign_by_iou, head_rois, heatmaps, sample_rois

HEADS = {"class": "box_head", "box": "box_head", "mask": "mask_head", "keypoint": "keypoint_head"}
"""Which head each loss of the second stage, and the teacher's of the same name, teaches; all losses
teach the first stage."""


def normalised(pixels):
    """uint8 RGB → the networks' input."""
    return (tf.cast(pixels, tf.float32) - 128.0) / 128.0


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
        Crop size, loss weights, sampling numbers and the stages to train are read from it. The
        other stages run as on the device, and nothing is computed for losses that would only
        teach those.
    distillation : Distillation, optional
        Adds losses against a teacher.
    hint : Hint, optional
        Adds a loss against the features of a network of another kind.
    """

    def __init__(
        self,
        model: MaskRCNN,
        config: Config,
        distillation: Distillation | None = None,
        hint: Hint | None = None,
    ):
        self.model = model
        self.distillation = distillation
        self.hint = hint
        self.config = config
        self.trained = set(config.train.only or model.stages)
        size = config.augment.crop
        shapes = [(-(-size // s), -(-size // s)) for s in model.layout.rpn_strides]
        self.anchors = tf.constant(network_anchors(config.model, shapes))
        self.level_sizes = [h * w * anchors_per_cell(config.model) for h, w in shapes]

    def _pool(self, pyramid, head, rois):
        return roi_align(
            [pyramid[name] for name in head.features],
            [self.model.layout.features[name] for name in head.features],
            head.level_thresholds, rois, head.output_size, head.sampling_ratio,
        )  # fmt: skip

    def _teacher_pool(self, pyramid, rois):
        """Head configuration of the teacher → its features of regions of the student's crop."""
        return lambda head: self._pool(pyramid, head, rois * self.distillation.zoom)

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
        image = normalised(batch["image"])
        stage = self.hint.first_stage if self.hint else self.model.first_stage
        out = stage(image, training=training and "backbone" in self.trained)
        if "backbone" not in self.trained:  # spares its backward pass
            out = {name: tf.stop_gradient(value) for name, value in out.items()}
        b = tf.shape(image)[0]
        levels = self.model.layout.rpn_levels
        logits = tf.concat([tf.reshape(out[f"rpn_logits_{v}"], (b, -1)) for v in levels], 1)
        deltas = tf.concat([tf.reshape(out[f"rpn_deltas_{v}"], (b, -1, 4)) for v in levels], 1)
        boxes, valid = batch["boxes"], batch["valid"]
        ignore, exhaustive = batch["ignore"], batch["exhaustive"]
        # Background is certain only where every class of the model is labelled.
        certain = exhaustive * tf.reduce_min(batch["labeled"], -1)

        decoded, proposals = propose(
            logits, deltas, self.anchors, cfg.augment.crop, t.proposals, cfg.model.rpn.nms_threshold
        )
        if cfg.model.rpn.anchor_boxes:
            anchor = assign_by_iou(self.anchors, boxes, valid, ignore, certain)
        else:
            anchor = assign_anchors(self.anchors, self.level_sizes, boxes, valid, ignore, certain)
        matched_box = tf.gather(boxes, anchor.matched, batch_dims=1)
        positive = tf.cast(anchor.positive, tf.float32)
        quality = tf.stop_gradient(bx.iou(decoded, matched_box)) * positive
        count = tf.maximum(total(tf.reduce_sum(positive)), 1.0)
        loss = {
            "rpn_class": losses.quality_focal(logits, quality, positive + anchor.negative, count),
            "rpn_box": losses.box_giou(decoded, matched_box, positive, count),
        }

        sample = sample_rois(
            proposals, boxes, valid, ignore, exhaustive, cfg.augment.crop,
            t.rois_per_image, t.positive_rois, seed,
        )  # fmt: skip
        teacher = None
        if self.distillation:
            teacher = self.distillation.first_stage(
                normalised(batch["closeup"]) if self.distillation.zoom > 1 else image
            )
            loss |= self.distillation.first_stage_losses(out, teacher)
        if self.hint:
            loss["distill_hint"] = self.hint.loss(image, out)
        loss |= self._second_stage(out, teacher, batch, sample, seed, training)
        weights = {
            "rpn_class": t.weight_rpn_class, "rpn_box": t.weight_rpn_box,
            "class": t.weight_class, "box": t.weight_box, "mask": t.weight_mask,
            "keypoint": t.weight_keypoint,
        }  # fmt: skip
        weights |= {
            k.replace("weight_", "distill_"): v
            for k, v in dataclasses.asdict(cfg.distill).items()
            if k.startswith("weight_")
        }
        if "backbone" not in self.trained:
            # What is left out here is left out of the graph of a tf.function.
            heads = {name: HEADS.get(name.removeprefix("distill_")) for name in loss}
            loss = {name: v for name, v in loss.items() if heads[name] in self.trained}
        loss["total"] = tf.add_n([weights[k] * v for k, v in loss.items()])
        return loss

    def _second_stage(self, pyramid, teacher, batch, sample, seed, training):
        cfg, t = self.config.model, self.config.train
        features = self._pool(pyramid, cfg.box_head, sample.boxes)
        head = self.model.box_head(features, training=training and "box_head" in self.trained)
        rois = tf.reshape(sample.boxes, (-1, 4))
        positive = tf.reshape(sample.positive, (-1,))
        matched = tf.gather(batch["boxes"], sample.matched, batch_dims=1)
        target = tf.reshape(matched, (-1, 4))
        label = tf.reshape(tf.gather(batch["labels"], sample.matched, batch_dims=1), (-1,))
        deltas = own_deltas(head["deltas"], label, cfg.box_head.class_agnostic)
        refined = bx.decode(deltas, rois, cfg.box_head.box_weights)
        count = tf.maximum(total(tf.reduce_sum(positive)), 1.0)

        known = tf.repeat(batch["labeled"], t.rois_per_image, axis=0)
        weight = tf.reshape(sample.weight, (-1,))
        if cfg.box_head.activation == "softmax":
            scores = losses.class_softmax(head["logits"], label, positive, known, weight)
        else:
            quality = tf.stop_gradient(bx.iou(refined, target)) * positive
            one_hot = tf.one_hot(label, len(cfg.classes))
            known = tf.maximum(known, one_hot * positive[:, None])
            scores = losses.class_quality(
                head["logits"], one_hot * quality[:, None], weight[:, None] * known
            )
        loss = {"class": scores, "box": losses.box_giou(refined, target, positive, count)}
        if self.distillation:
            loss |= self.distillation.box_losses(
                head,
                self._teacher_pool(teacher, sample.boxes),
                rois,
                weight * self.distillation.trust(rois),
            )
        loss |= self._mask_losses(pyramid, teacher, batch, sample, refined, seed, training)
        if self.model.keypoint_head:
            loss["keypoint"] = self._keypoint_loss(pyramid, batch, sample, refined, seed, training)
        return loss

    def _mask_losses(self, pyramid, teacher, batch, sample, refined, seed, training):
        """Masks learn on refined boxes and proposals alike: at run time they see refined ones."""
        cfg, t = self.config.model, self.config.train
        size = float(self.config.augment.crop)
        boxes, matched, weight = head_rois(
            sample, refined, batch["boxes"], batch["has_mask"], size, t.mask_rois, seed + 1
        )
        weight = tf.reshape(weight, (-1,))
        features = self._pool(pyramid, cfg.mask_head, boxes)
        training = training and "mask_head" in self.trained
        logits = self.model.mask_head(features, training=training)["logits"]
        label = None
        if not cfg.mask_head.class_agnostic:
            label = tf.reshape(tf.gather(batch["labels"], matched, batch_dims=1), (-1,))
        logits = own_masks(logits, label)
        loss = {}
        if self.distillation:
            loss["distill_mask"] = self.distillation.mask_loss(
                logits,
                self._teacher_pool(teacher, boxes),
                weight * self.distillation.trust(tf.reshape(boxes, (-1, 4))),
                label,
            )
        bitmaps = tf.gather(batch["bitmaps"], matched, batch_dims=1)
        side = bitmaps.shape[-1]
        bitmaps = tf.cast(tf.reshape(bitmaps, (-1, side, side)), tf.float32) / 255.0
        full = tf.reshape(tf.gather(batch["full_boxes"], matched, batch_dims=1), (-1, 4))
        target = crop_bitmaps(bitmaps, full, tf.reshape(boxes, (-1, 4)), logits.shape[1])
        loss["mask"] = losses.mask_bce_dice(logits, target, weight)
        return loss

    def _keypoint_loss(self, pyramid, batch, sample, refined, seed, training):
        """Objects without labelled keypoints, and those of other classes, teach nothing here."""
        cfg, t = self.config.model, self.config.train
        size = float(self.config.augment.crop)
        own = batch["labels"] == cfg.classes.index(cfg.keypoint_head.class_id)
        labelled = tf.reduce_any(batch["keypoints"][..., 2] > 0, -1)
        boxes, matched, weight = head_rois(
            sample, refined, batch["boxes"], tf.cast(own & labelled, tf.float32), size,
            t.keypoint_rois, seed + 3,
        )  # fmt: skip
        boxes = bx.enlarge(boxes, cfg.keypoint_head.box_scale, size, size)
        features = self._pool(pyramid, cfg.keypoint_head, boxes)
        training = training and "keypoint_head" in self.trained
        logits = self.model.keypoint_head(features, training=training)["logits"]
        points = tf.gather(batch["keypoints"], matched, batch_dims=1)
        points = tf.reshape(points, (-1, *points.shape[2:]))
        flat = tf.reshape(boxes, (-1, 4))
        target, inside = heatmaps(points, flat, logits.shape[1], t.keypoint_sigma)
        inside *= tf.reshape(weight, (-1, 1))
        return losses.heatmap_cross_entropy(logits, target, inside)
