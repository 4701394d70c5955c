"""Distillation from a trained network that looks at the same crops and the same regions.

The teacher is a :class:`MaskRCNN` of the same kind and anchors: usually the wide network that a
narrow one was pruned from. Its answers are dense, so the student learns from every cell and every
region, labelled or not (Hinton et al. 2015; features after Romero et al. 2015, FitNets).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from ..arch.model import MaskRCNN
from ..config import DistillConfig
from . import boxes_tf as bx
from .distribution import total

# Objects of this side are seen best by a network of short side 320 (docs/teach.md): seen `zoom`
# times as large, those profit whose side is below it by more than the root of zoom.
BEST_SIDE = 130.0


class DistillError(ValueError):
    """The teacher cannot teach this student."""


def _soft_bce(logits, target):
    """Cross-entropy above the target's own entropy: 0 when the student agrees."""
    bce = tf.nn.sigmoid_cross_entropy_with_logits
    own = bce(target, tf.math.log(target + 1e-6) - tf.math.log1p(1e-6 - target))
    return bce(target, logits) - own


def _soft_cross_entropy(logits, target):
    """Cross-entropy over the last axis against a softmax, above its own entropy."""
    own = tf.nn.log_softmax(target)
    return tf.reduce_sum(tf.exp(own) * (own - tf.nn.log_softmax(logits)), -1)


def own_deltas(deltas, column, class_agnostic: bool):
    """(R, 4) or, for each class, (R, 4C) → (R, 4), those of the class in ``column`` (R,)."""
    if class_agnostic:
        return deltas
    return tf.gather(tf.reshape(deltas, (tf.shape(deltas)[0], -1, 4)), column, batch_dims=1)


def own_masks(logits, column=None):
    """(R, S, S, K) → (R, S, S), those of the class in ``column`` (R,); None: the only ones."""
    if column is None:
        return logits[..., 0]
    pick = tf.one_hot(column, logits.shape[-1])
    return tf.reduce_sum(logits * pick[:, None, None], -1)


def spread(values):
    """Sum of squared deviations from the mean, over the whole batch."""
    count = total(tf.cast(tf.size(values), tf.float32))
    mean = total(tf.reduce_sum(values)) / count
    return total(tf.reduce_sum(tf.square(values - mean))) + 1e-3 * count


class Distillation:
    """Losses of a student against a teacher on one batch.

    Parameters
    ----------
    teacher : MaskRCNN
        Its weights are only read.
    student : MaskRCNN
    config : DistillConfig
    channels : sequence of int, optional
        Which of the teacher's pyramid channels the student's are, as ``prune`` chose them; needed
        where the numbers differ, else features are not compared.

    Notes
    -----
    With ``config.zoom`` the teacher sees the same crops that many times as large. Then only its
    answers about small objects are taken: on those it is better than at the student's size. A
    teacher of the same size as the student has something to teach so. Features are not compared:
    what an object is to the teacher's P3, it is to the student's P2.

    Raises
    ------
    DistillError
        Other anchors, classes or mask size than the student's, channels that do not fit, or
        anchors too large for the zoom.
    """

    def __init__(
        self,
        teacher: MaskRCNN,
        student: MaskRCNN,
        config: DistillConfig,
        channels: Sequence[int] | None = None,
    ):
        theirs, ours = teacher.config, student.config
        for what, a, b in (
            ("backbone.kind", theirs.backbone.kind, ours.backbone.kind),
            ("rpn.anchor_boxes", theirs.rpn.anchor_boxes, ours.rpn.anchor_boxes),
            ("box_head.activation", theirs.box_head.activation, ours.box_head.activation),
            (
                "box_head.class_agnostic",
                theirs.box_head.class_agnostic,
                ours.box_head.class_agnostic,
            ),
            ("classes", theirs.classes, ours.classes),
            ("rpn.anchor_scale", theirs.rpn.anchor_scale, ours.rpn.anchor_scale),
            ("rpn.anchor_ratios", theirs.rpn.anchor_ratios, ours.rpn.anchor_ratios),
            ("box_head.box_weights", theirs.box_head.box_weights, ours.box_head.box_weights),
            (
                "mask_head.output_size",
                theirs.mask_head.output_size,
                ours.mask_head.output_size,
            ),
            (
                "mask_head.class_agnostic",
                theirs.mask_head.class_agnostic,
                ours.mask_head.class_agnostic,
            ),
        ):
            if a != b:
                raise DistillError(f"the teacher's {what} is {a}, the student's {b}")
        width = student.layout.channels
        if channels is None and teacher.layout.channels == width:
            channels = range(width)
        if channels is not None and len(channels) != width:
            raise DistillError(f"{len(channels)} channels are named, the student has {width}")
        self.channels = None if channels is None else tf.constant(list(channels), tf.int32)
        self.teacher = teacher
        self.zoom = config.zoom
        self.largest = math.inf if config.zoom == 1 else BEST_SIDE / math.sqrt(config.zoom)
        self.config = config
        if self.zoom > 1 and not self._rpn_levels()[0]:
            scale = teacher.config.rpn.anchor_scale
            raise DistillError(
                f"with model.rpn.anchor_scale {scale} no level of the RPN is for what a teacher "
                f"sees better {config.zoom} times as large: lower distill.zoom"
            )

    def first_stage(self, image) -> dict[str, tf.Tensor]:
        """The teacher's first stage on normalised images (B, zoom S, zoom S, 3)."""
        outputs = self.teacher.first_stage(image, training=False)
        return {name: tf.stop_gradient(value) for name, value in outputs.items()}

    def first_stage_losses(self, ours, theirs) -> dict[str, tf.Tensor]:
        """Losses of pyramid features, objectness and RPN boxes.

        Parameters
        ----------
        ours, theirs : dict of tensors
            Outputs of both first stages.
        """
        losses, layout = {}, self.teacher.layout
        if self.channels is not None and self.zoom == 1:
            parts = []
            for level in layout.features:
                target = tf.gather(theirs[level], self.channels, axis=-1)
                error = tf.reduce_sum(tf.square(ours[level] - target))
                parts.append(error / spread(target))
            losses["distill_feature"] = tf.add_n(parts) / len(parts)
        b = tf.shape(ours[next(iter(layout.features))])[0]

        def joined(outputs, levels, kind, last):
            maps = [tf.reshape(outputs[f"rpn_{kind}_{v}"], (b, -1, *last)) for v in levels]
            return tf.concat(maps, 1)

        own, others = self._rpn_levels()
        logits = joined(ours, own, "logits", ())
        target = tf.sigmoid(joined(theirs, others, "logits", ()))
        count = total(tf.reduce_sum(target)) + 1.0
        gap = tf.square(target - tf.sigmoid(logits))
        objectness = tf.reduce_sum(_soft_bce(logits, target) * gap) / count
        deltas = tf.abs(joined(ours, own, "deltas", (4,)) - joined(theirs, others, "deltas", (4,)))
        boxes = tf.reduce_sum(tf.reduce_sum(deltas, -1) * target) / count
        losses["distill_rpn"] = objectness + boxes
        return losses

    def _rpn_levels(self) -> tuple[list[str], list[str]]:
        """Levels of the student's RPN, and those of the teacher's that see the same objects."""
        layout = self.teacher.layout
        if self.zoom == 1:
            return list(layout.rpn_levels), list(layout.rpn_levels)
        by_stride = dict(zip(layout.rpn_strides, layout.rpn_levels, strict=True))
        limit = self.largest / self.teacher.config.rpn.anchor_scale
        small = [s for s in by_stride if s <= limit and s * self.zoom in by_stride]
        return [by_stride[s] for s in small], [by_stride[s * self.zoom] for s in small]

    def trust(self, rois) -> tf.Tensor:
        """1 for the regions of a crop (R, 4) that the teacher is asked about, else 0: (R,)."""
        sides = tf.maximum(rois[:, 2:] - rois[:, :2], 0.0)
        return tf.cast(sides[:, 0] * sides[:, 1] < self.largest**2, tf.float32)

    def box_losses(self, head, pool: Callable, rois, weight) -> dict[str, tf.Tensor]:
        """Losses of class scores and refined boxes on the same regions.

        Parameters
        ----------
        head : dict
            The student's ``logits`` and ``deltas``.
        pool : callable
            Box head configuration of the teacher → its RoI features (R, S, S, C).
        rois : (R, 4)
        weight : (R,) 0 for padding
        """
        config = self.teacher.config.box_head
        theirs = self.teacher.box_head(pool(config), training=False)
        theirs = {name: tf.stop_gradient(value) for name, value in theirs.items()}
        count = tf.maximum(total(tf.reduce_sum(weight)), 1.0)
        if config.activation == "softmax":
            target = tf.nn.softmax(theirs["logits"])[:, 1:]
            cross = _soft_cross_entropy(head["logits"], theirs["logits"])
        else:
            target = tf.sigmoid(theirs["logits"])
            cross = tf.reduce_sum(_soft_bce(head["logits"], target), -1)
        certain = tf.reduce_max(target, -1) * weight
        best = tf.argmax(target, -1, output_type=tf.int32)
        refined, wanted = (
            bx.decode(
                own_deltas(answer["deltas"], best, config.class_agnostic), rois, config.box_weights
            )
            for answer in (head, theirs)
        )
        gap = 1.0 - bx.giou(refined, wanted)
        return {
            "distill_class": tf.reduce_sum(cross * weight) / count,
            "distill_box": tf.reduce_sum(gap * certain) / (total(tf.reduce_sum(certain)) + 1.0),
        }

    def mask_loss(self, logits, pool: Callable, weight, column=None) -> tf.Tensor:
        """Cross-entropy against the teacher's soft masks on the same regions.

        Parameters
        ----------
        logits : (R, S, S) of the student
        pool : callable
            Mask head configuration of the teacher → its RoI features.
        weight : (R,)
        column : (R,) int32, the class of each region; None for class-agnostic masks
        """
        features = pool(self.teacher.config.mask_head)
        theirs = self.teacher.mask_head(features, training=False)["logits"]
        target = tf.stop_gradient(tf.sigmoid(own_masks(theirs, column)))
        cross = tf.reduce_mean(_soft_bce(logits, target), axis=(1, 2))
        return tf.reduce_sum(cross * weight) / tf.maximum(total(tf.reduce_sum(weight)), 1.0)
