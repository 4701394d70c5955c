"""Dense early blocks that imitate a trained trunk's own.

A trunk with fused blocks (:func:`..arch.backbone.fused_front`) has no published weights. What its
blocks should give is known, though: what blocks 1, 2 and 3 of the trained trunk give.
Learning that is regression on a few layers, which takes minutes where training from the labels
would take days (block-wise distillation, Li et al. 2020, DNA).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from edgemask.images import load_image

from ..arch.backbone import trunk_layers
from ..arch.model import MaskRCNN
from ..training.distill import spread

ENDS = ("1_project", "2_add", "3_project")


class FuseError(ValueError):
    """The networks do not fit together."""


def load_small(path: Path, short_side: int) -> np.ndarray:
    """Read a photograph, shrunk to a short side where it is larger: thousands have to be kept."""
    rgb = load_image(path)
    height, width = rgb.shape[:2]
    factor = short_side / min(height, width)
    if factor >= 1:
        return rgb
    size = round(width * factor), round(height * factor)
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))


def random_crops(
    images: Sequence[np.ndarray], size: int, batch: int, seed: int = 0
) -> Iterator[np.ndarray]:
    """Draw batches of square crops without end, (batch, size, size, 3) float32 in [-1, 1).

    Parameters
    ----------
    images : sequence of uint8 (H, W, 3)
    size : int
        Side of the crops. They show 0.6 to 1.4 times as many pixels of the image along each axis.
    """
    random = np.random.default_rng(seed)
    while True:
        crops = np.empty((batch, size, size, 3), np.float32)
        for index in range(batch):
            image = images[random.integers(len(images))]
            height, width = image.shape[:2]
            side = min(size * math.exp(random.uniform(math.log(0.6), math.log(1.4))), height, width)
            x, y = random.uniform(0, width - side), random.uniform(0, height - side)
            patch = Image.fromarray(image).resize(
                (size, size), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side)
            )
            crops[index] = (np.asarray(patch, np.float32) - 128) / 128
        yield crops[:, :, ::-1] if random.random() < 0.5 else crops


def copy_weights(wide: MaskRCNN, target: MaskRCNN) -> list[str]:
    """Give ``target`` the weights of the same name and shape; return the layers that lack some."""
    source = wide.named_weights()
    fresh = {}
    for name, weight in target.named_weights().items():
        if name in source and source[name].shape == weight.shape:
            weight.assign(source[name])
        else:
            fresh[name.rpartition("/")[0]] = None
    return list(fresh)


def _ends(model: MaskRCNN) -> list:
    """What blocks 1 to 3 end with. A second block that is left out gives what the first gives."""
    fused = model.config.backbone.fused
    names = [f"{'fused' if i < len(fused) else 'block'}_{end}" for i, end in enumerate(ENDS)]
    if len(fused) > 1 and not fused[1]:
        names[1] = names[0]
    return [model.first_stage.get_layer(name).output for name in names]


def fit_front(
    wide: MaskRCNN,
    target: MaskRCNN,
    crops: Iterator[np.ndarray],
    steps: int,
    learning_rate: float = 4e-3,
    say: Callable[[int, list[float]], None] = lambda step, errors: None,
) -> list[float]:
    """Teach the fused blocks of ``target`` to give what the early blocks of ``wide`` give.

    Where there is only one of them, blocks 2 and 3 are trained on with it.

    Parameters
    ----------
    wide, target : MaskRCNN
        With early blocks of either kind, and with fused ones.
    crops : iterator
        As :func:`random_crops` gives them.
    steps : int
    learning_rate : float
        At the top of the cosine.
    say : callable
        Gets the step and the three errors, now and then.

    Returns
    -------
    list of float
        Squared error of each block's output over its variance, mean of the last steps.

    Raises
    ------
    FuseError
        ``target`` has no fused blocks, the outputs differ in number, or the error is not finite.
    """
    if not target.config.backbone.fused:
        raise FuseError(
            "model.backbone.fused is empty: give the widths of one fused block or three"
        )
    ends, own = _ends(wide), _ends(target)
    teacher = keras.Model(wide.first_stage.input, ends)
    if [a.shape[-1] for a in ends] != [b.shape[-1] for b in own]:
        raise FuseError("the networks' early blocks end with different numbers of channels")
    student = keras.Model(target.first_stage.input, own)
    weights = [weight for layer in student.layers for weight in layer.weights]
    # The first block only guides: the pyramid and the rest of the trunk read the others.
    return _fit(teacher, student, weights, (0.3, 1.0, 1.0), crops, steps, learning_rate, say)


def fit_trunk(
    wide: MaskRCNN,
    target: MaskRCNN,
    crops: Iterator[np.ndarray],
    steps: int,
    learning_rate: float = 5e-4,
    say: Callable[[int, list[float]], None] = lambda step, errors: None,
) -> list[float]:
    """Teach the trunk of ``target`` to lead to the pyramid and the RPN outputs of ``wide``.

    What comes after the trunk stays as it is, so that heads that were trained on the pyramid of
    ``wide`` can go on working.

    Parameters
    ----------
    wide, target, crops, steps, learning_rate, say
        As in :func:`fit_front`.

    Returns
    -------
    list of float
        Squared error over the variance of each map of the pyramid, of the RPN's logits and of its
        deltas.

    Raises
    ------
    FuseError
        The networks have other maps, or the error is not finite.
    """
    names = list(wide.layout.features)
    if names != list(target.layout.features) or wide.layout.channels != target.layout.channels:
        raise FuseError(
            "the networks' pyramids differ: give networks that differ in their trunks only"
        )
    teacher, student = (_with_joined_rpn(model, names) for model in (wide, target))
    trunk = trunk_layers(target.first_stage)
    weights = [weight for layer in trunk for weight in layer.weights]
    parts = (1.0,) * len(names) + (0.5, 0.5)
    return _fit(teacher, student, weights, parts, crops, steps, learning_rate, say)


def _with_joined_rpn(model: MaskRCNN, names: Sequence[str]) -> Callable:
    """Image → the maps of the pyramid, all logits, all deltas of the RPN; as when deployed."""

    def outputs(image, training):
        found = model.first_stage(image, training=False)
        joined = [
            tf.concat([tf.reshape(found[f"rpn_{kind}_{level}"], (-1, 1))
                       for level in model.layout.rpn_levels], 0)
            for kind in ("logits", "deltas")
        ]  # fmt: skip
        return [found[name] for name in names] + joined

    return outputs


def _fit(
    teacher: Callable, student: Callable, weights, parts: Sequence[float], crops, steps: int,
    learning_rate: float, say: Callable[[int, list[float]], None],
) -> list[float]:  # fmt: skip
    """Regress the outputs of ``student`` on those of ``teacher``, by Adam and one cosine."""
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps, alpha=0.01, warmup_target=learning_rate, warmup_steps=max(steps // 50, 1)
    )
    optimizer = keras.optimizers.Adam(schedule, clipnorm=1.0)
    optimizer.build(weights)

    @tf.function
    def step(image):
        targets = teacher(image, training=False)
        variables = [weight.value for weight in weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            errors = [
                tf.reduce_sum(tf.square(ours - theirs)) / spread(theirs)
                for ours, theirs in zip(student(image, training=True), targets, strict=True)
            ]
            loss = tf.add_n([part * error for part, error in zip(parts, errors, strict=True)])
        optimizer.apply(tape.gradient(loss, variables), weights)
        return tf.stack(errors)

    recent: list[np.ndarray] = []
    for number in range(steps):
        recent.append(step(tf.constant(next(crops))).numpy())
        if not np.isfinite(recent[-1]).all():
            raise FuseError(f"the error is not finite at step {number}: lower the learning rate")
        if number % 50 == 49 or number == steps - 1:
            say(number + 1, np.mean(recent[-50:], 0).tolist())
    return np.mean(recent[-50:], 0).tolist()
