"""A narrowed network learns, part by part, to say what the wide one says.

What :mod:`.surgeon` leaves of a network still has the wide one's trunk, if the trunk was not
narrowed. RPN, box head and mask head then read the same features as the wide ones do, and each can
be fitted to :mod:`.lessons` on its own: regression on a few layers, minutes in place of the days of
training from labels (block-wise distillation, Li et al. 2020, DNA).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgemask.geometry import fit_input, resize
from edgemask.pipeline import Pipeline
from edgemask.quant import dequantize

from ..arch.model import MaskRCNN
from .lessons import Lesson

AVERAGE = 0.99  # decay of the averaged weights, which are the result
BATCHES = {"rpn": 8, "box_head": 96, "mask_head": 48}  # photographs of one size, or regions
RATES = {"rpn": 1e-3, "box_head": 7e-4, "mask_head": 1e-4}
OTHER_TRUNK = 0.1  # squared error of features over their variance that is not rounding any more

Batches = Iterator[tuple[NDArray[Any], ...]]
Say = Callable[[str, int, float], None]


class ImitationError(ValueError):
    """The student cannot learn from these lessons."""


class Fit(NamedTuple):
    """How a part was fitted: the mean loss of the first and of the last tenth of the steps."""

    before: float
    after: float
    epochs: float  # how often each view of a photograph, or each region, was drawn in the mean


def imitate(
    student: MaskRCNN,
    lessons: Sequence[Lesson],
    steps: dict[str, int],
    rates: dict[str, float] | None = None,
    seed: int = 0,
    say: Say = lambda part, step, loss: None,
) -> dict[str, Fit]:
    """Fit parts of a network to the lessons of a wider one with the same trunk.

    Parameters
    ----------
    student : MaskRCNN
        Of the kind ``maskrcnn2go``; changed in place, but for its trunk.
    lessons : sequence of Lesson
    steps : dict
        By part (``rpn``, ``box_head``, ``mask_head``); a part that is not named stays as it is.
    rates : dict, optional
        Learning rates by part, at the top of the cosine; `RATES` by default.
    seed : int
        Of the order of the lessons.
    say : callable
        Gets the part, the step and the mean loss since it was called last, every 100 steps.

    Returns
    -------
    dict
        A `Fit` by part.

    Raises
    ------
    ImitationError
        There is nothing to learn a part from, or a loss is not finite.
    """
    made = {"rpn": _rpn, "box_head": _box_head, "mask_head": _mask_head}
    found = {}
    for part, count in steps.items():
        if count < 1:
            continue
        batches, size = _material(part, lessons, np.random.default_rng(seed))
        if not size:
            raise ImitationError(f"no photograph teaches the {part}: give some that show objects")
        model, loss = made[part](student)
        rate = (RATES | (rates or {}))[part]
        drawn: list[int] = []
        history = _fit(
            model, loss, _counted(batches, drawn), count, rate, lambda *a, part=part: say(part, *a)
        )
        tenth = max(1, count // 10)
        before, after = float(np.mean(history[:tenth])), float(np.mean(history[-tenth:]))
        found[part] = Fit(before, after, sum(drawn) / size)
    return found


def trunk_gap(student: MaskRCNN, teacher: Pipeline, rgb: NDArray[np.uint8]) -> float:
    """How far the student's features are from the teacher's.

    Parameters
    ----------
    student : MaskRCNN
    teacher : Pipeline
    rgb : uint8 (H, W, 3)

    Returns
    -------
    float
        Squared error over variance. Above `OTHER_TRUNK` the trunks are not the same.
    """
    if (
        student.config.backbone.kind != "maskrcnn2go"
        or "c4" not in teacher.manifest["roi"]["features"]
    ):
        raise ImitationError(
            "both networks must be of the kind maskrcnn2go, see docs/distillation.md"
        )
    spec = teacher.manifest["input"]
    size = fit_input(*rgb.shape[:2], spec["short_side"], spec["stride"], spec["max_aspect"])
    image = resize(rgb, size)
    stage = teacher.stages["backbone"]
    theirs = dequantize(
        stage.run(image=teacher.encode_image(image))["c4"], *stage.quantization("c4")
    )
    values = (image[None].astype(np.float32) - spec["mean"]) / spec["std"]
    own = np.asarray(student.first_stage(tf.constant(values, tf.float32), training=False)["c4"])
    return float(np.square(own - theirs).mean() / max(float(np.var(theirs)), 1e-12))


def _fit(
    model: keras.Model,
    loss: Callable[..., tf.Tensor],
    batches: Batches,
    steps: int,
    rate: float,
    say: Callable[[int, float], None],
) -> list[float]:
    """Adam with one cosine; leaves the averaged weights in the model, returns all losses."""
    weights = model.weights
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(
            0.0, steps, alpha=0.02, warmup_target=rate, warmup_steps=max(1, steps // 25)
        ),
        beta_2=0.98, clipnorm=1.0,
    )  # fmt: skip
    optimizer.build(weights)
    average = [np.asarray(weight).copy() for weight in weights]

    @tf.function(reduce_retracing=True)
    def step(inputs, *wanted):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([weight.value for weight in weights])
            error = loss(model(tf.cast(inputs, tf.float32), training=True), *wanted)
        optimizer.apply(tape.gradient(error, [weight.value for weight in weights]), weights)
        return error

    history: list[float] = []
    for number in range(1, steps + 1):
        history.append(float(step(*(tf.constant(array) for array in next(batches)))))
        if not np.isfinite(history[-1]):
            raise ImitationError(f"the loss is not finite at step {number}: lower the rate")
        decay = min(AVERAGE, number / (number + 9))
        for mean, weight in zip(average, weights, strict=True):
            mean += (1 - decay) * (np.asarray(weight) - mean)
        if number % 100 == 0 or number == steps:
            say(number, float(np.mean(history[-100:])))
    for mean, weight in zip(average, weights, strict=True):
        weight.assign(mean)
    return history


def _material(
    part: str, lessons: Sequence[Lesson], random: np.random.Generator
) -> tuple[Batches, int]:
    """Batches without end, and of how many photographs or regions."""
    if not lessons:
        return iter(()), 0
    if part == "rpn":
        return _photographs(lessons, random), len(lessons)
    if part == "box_head":
        names = ("regions", "probabilities", "columns", "deltas")
    else:
        names = ("mask_regions", "mask_columns", "masks")
    arrays = [np.concatenate([getattr(lesson, name) for lesson in lessons]) for name in names]
    chances = np.ones(len(arrays[0]))
    if part == "box_head":  # objects more often than background
        chances += 4 * (1 - arrays[1][:, 0].astype(np.float64))
    return _rows(arrays, chances, BATCHES[part], random), len(chances)


def _counted(batches: Batches, drawn: list[int]) -> Batches:
    """The batches; what each has is added to `drawn`."""
    for batch in batches:
        drawn.append(len(batch[0]))
        yield batch


def _photographs(lessons: Sequence[Lesson], random: np.random.Generator) -> Batches:
    """Draw batches of photographs of one size."""
    sizes: dict[tuple[int, ...], list[Lesson]] = {}
    for lesson in lessons:
        sizes.setdefault(lesson.features.shape, []).append(lesson)
    groups = list(sizes.values())
    chances = np.array([len(group) for group in groups]) / len(lessons)
    while True:
        group = groups[random.choice(len(groups), p=chances)]
        count = min(BATCHES["rpn"], len(group))
        drawn = [group[i] for i in random.choice(len(group), count, replace=False)]
        yield (
            np.concatenate([lesson.features for lesson in drawn]),
            np.stack([lesson.objectness for lesson in drawn]),
            np.stack([lesson.rpn_deltas for lesson in drawn]),
        )


def _rows(
    arrays: Sequence[NDArray[Any]],
    chances: NDArray[np.float64],
    batch: int,
    random: np.random.Generator,
) -> Batches:
    """Draw rows of parallel arrays."""
    limits = np.cumsum(chances)
    while True:
        rows = np.searchsorted(limits, random.random(batch) * limits[-1], side="right")
        yield tuple(array[np.minimum(rows, len(limits) - 1)] for array in arrays)


def _rpn(student: MaskRCNN) -> tuple[keras.Model, Callable[..., tf.Tensor]]:
    """The RPN as a model of its own, and its loss."""
    outputs = student.first_stage.output
    (level,) = student.layout.rpn_levels
    wanted = [outputs[f"rpn_{name}_{level}"] for name in ("logits", "deltas")]
    model = keras.Model(outputs["c4"], wanted, name="rpn")

    def loss(found, objectness, deltas):
        logits, own = found
        objectness, deltas = tf.cast(objectness, tf.float32), tf.cast(deltas, tf.float32)
        # Nearly all anchors are background that both networks agree on.
        weight = 0.05 + tf.maximum(objectness, tf.stop_gradient(tf.sigmoid(logits)))
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(objectness, logits)
        gap = tf.reshape(own, tf.shape(deltas)) - deltas
        boxes = tf.reduce_mean(_huber(gap, 0.1), -1) * 20
        return _mean(entropy, weight) + _mean(boxes, objectness)

    return model, loss


def _box_head(student: MaskRCNN) -> tuple[keras.Model, Callable[..., tf.Tensor]]:
    def loss(found, probabilities, columns, deltas):
        probabilities = tf.cast(probabilities, tf.float32)
        entropy = -tf.reduce_sum(probabilities * tf.nn.log_softmax(found["logits"]), -1)
        own = tf.reshape(found["deltas"], (-1, tf.shape(probabilities)[1] - 1, 4))
        gap = tf.gather(own, columns, batch_dims=1) - tf.cast(deltas, tf.float32)
        weight = tf.gather(probabilities[:, 1:], columns, batch_dims=1)
        return tf.reduce_mean(entropy) + _mean(tf.reduce_mean(_huber(gap, 0.5), -1) * 2, weight)

    return student.box_head, loss


def _mask_head(student: MaskRCNN) -> tuple[keras.Model, Callable[..., tf.Tensor]]:
    def loss(found, columns, masks):
        own = tf.gather(tf.transpose(found["logits"], (0, 3, 1, 2)), columns, batch_dims=1)
        return tf.reduce_mean(
            tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(masks, tf.float32), own)
        )

    return student.mask_head, loss


def _huber(gap: tf.Tensor, knee: float) -> tf.Tensor:
    """gap² / 2 up to the knee, a line from there on."""
    size = tf.abs(gap)
    return tf.where(size < knee, size * size / 2, knee * (size - knee / 2))


def _mean(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values * weight) / (tf.reduce_sum(weight) + 1e-3)
