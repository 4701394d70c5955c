"""Learning from a trained network of the same kind."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.arch import build_model
from edgemask_convert.config import DistillConfig, from_dict
from edgemask_convert.training.distill import Distillation, DistillError

from ..compress.test_prune import config
from ..conftest import TINY_2GO, changed

RANDOM = np.random.default_rng(8)


def first_stage_losses(teacher: Any, student: Any, channels: Any = None) -> dict[str, float]:
    distillation = Distillation(teacher, student, DistillConfig(), channels)
    image = tf.constant(RANDOM.uniform(-1, 1, (2, 64, 64, 3)), tf.float32)
    ours = student.first_stage(image, training=False)
    losses = distillation.first_stage_losses(ours, distillation.first_stage(image))
    return {name: float(value) for name, value in losses.items()}


def features(size: int, channels: int, count: int = 6) -> tf.Tensor:
    return tf.constant(RANDOM.uniform(0, 6, (count, size, size, channels)), tf.float32)


def second_stage_losses(teacher: Any, student: Any, weight: np.ndarray) -> dict[str, float]:
    distillation = Distillation(teacher, student, DistillConfig())
    box = features(7, 16)
    corner = RANDOM.uniform(0, 30, (6, 2))
    rois = tf.constant(np.concatenate([corner, corner + RANDOM.uniform(8, 30, (6, 2))], 1))
    head = student.box_head(box)
    losses = distillation.box_losses(
        head, lambda config: box, tf.cast(rois, tf.float32), tf.constant(weight, tf.float32)
    )
    mask = features(14, 16)
    logits = student.mask_head(mask)["logits"][..., 0]
    losses["distill_mask"] = distillation.mask_loss(
        logits, lambda config: mask, tf.constant(weight, tf.float32)
    )
    return {name: float(value) for name, value in losses.items()}


def other() -> Any:
    keras.utils.set_random_seed(11)
    return build_model(config())


def test_a_student_that_agrees_has_nothing_to_learn(tiny_model: Any) -> None:
    for name, value in first_stage_losses(tiny_model, tiny_model).items():
        assert value == pytest.approx(0, abs=1e-4), name
    for name, value in second_stage_losses(tiny_model, tiny_model, np.ones(6)).items():
        assert value == pytest.approx(0, abs=1e-4), name


def test_another_network_is_punished(tiny_model: Any) -> None:
    losses = first_stage_losses(tiny_model, other())
    losses |= second_stage_losses(tiny_model, other(), np.ones(6))
    assert set(losses) == {
        "distill_feature", "distill_rpn", "distill_class", "distill_box", "distill_mask",
    }  # fmt: skip
    assert all(value > 1e-3 for value in losses.values()), losses


def test_padding_teaches_nothing(tiny_model: Any) -> None:
    losses = second_stage_losses(tiny_model, other(), np.zeros(6))
    assert losses == {"distill_class": 0, "distill_box": 0, "distill_mask": 0}


def test_gradients_reach_the_student_and_not_the_teacher(tiny_model: Any) -> None:
    student = other()
    distillation = Distillation(tiny_model, student, DistillConfig())
    image = tf.constant(RANDOM.uniform(-1, 1, (1, 64, 64, 3)), tf.float32)
    theirs = [w.value for w in tiny_model.first_stage.trainable_weights]
    ours = [w.value for w in student.first_stage.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch(theirs)
        outputs = student.first_stage(image, training=False)
        losses = distillation.first_stage_losses(outputs, distillation.first_stage(image))
        total = tf.add_n(list(losses.values()))
    gradients = tape.gradient(total, [*theirs, *ours])
    assert all(g is None for g in gradients[: len(theirs)])
    assert any(g is not None and float(tf.norm(g)) > 0 for g in gradients[len(theirs) :])


def test_a_narrow_student_is_compared_on_its_own_channels(tiny_model: Any) -> None:
    """Where the student's pyramid is a selection of the teacher's, the right one costs nothing."""
    student = build_model(config(neck__channels=8))
    distillation = Distillation(tiny_model, student, DistillConfig(), list(range(1, 16, 2)))
    image = tf.constant(RANDOM.uniform(-1, 1, (1, 64, 64, 3)), tf.float32)
    theirs = distillation.first_stage(image)
    selected = {k: v[..., 1::2] if k in ("p2", "p3", "p4", "p5") else v for k, v in theirs.items()}
    assert float(distillation.first_stage_losses(selected, theirs)["distill_feature"]) == 0
    shifted = {k: v[..., ::2] if k in ("p2", "p3", "p4", "p5") else v for k, v in theirs.items()}
    assert float(distillation.first_stage_losses(shifted, theirs)["distill_feature"]) > 0.01
    without = Distillation(tiny_model, student, DistillConfig())
    assert "distill_feature" not in without.first_stage_losses(selected, theirs)


def test_a_teacher_that_looks_closer_is_asked_about_small_objects_only(tiny_model: Any) -> None:
    distillation = Distillation(tiny_model, other(), DistillConfig(zoom=2))
    sides = [40.0, 91.0, 93.0, 200.0]  # half of its best side's square is 92 x 92
    rois = tf.constant([[10, 20, 10 + side, 20 + side] for side in sides])
    assert distillation.trust(rois).numpy().tolist() == [1, 1, 0, 0]
    assert distillation.trust(tf.constant([[0.0, 0, 300, 20]])).numpy().tolist() == [1]
    at_its_size = Distillation(tiny_model, other(), DistillConfig())
    assert at_its_size.trust(rois).numpy().tolist() == [1, 1, 1, 1]


def test_a_closer_teachers_coarser_level_teaches_the_finer_one(tiny_model: Any) -> None:
    """Anchors are in strides, so the same cell's answer is right one level up at twice the size."""
    distillation = Distillation(tiny_model, tiny_model, DistillConfig(zoom=2))
    image = tf.constant(RANDOM.uniform(-1, 1, (1, 64, 64, 3)), tf.float32)
    ours = tiny_model.first_stage(image, training=False)
    closer = distillation.first_stage(tf.image.resize(image, (128, 128)))
    losses = distillation.first_stage_losses(ours, closer)
    assert set(losses) == {"distill_rpn"}
    assert float(losses["distill_rpn"]) > 1e-3
    agreeing = dict(ours)
    for kind in ("logits", "deltas"):
        for level, seen in (("3", "4"), ("4", "5")):  # the small ones: anchors of 40 and 80
            agreeing[f"rpn_{kind}_{level}"] = closer[f"rpn_{kind}_{seen}"]
    losses = distillation.first_stage_losses(agreeing, closer)
    assert float(losses["distill_rpn"]) == pytest.approx(0, abs=1e-4)


def test_a_teacher_of_something_else_is_refused(tiny_model: Any) -> None:
    with pytest.raises(DistillError, match=r"the teacher's classes is \[1, 2\], the student's"):
        Distillation(tiny_model, build_model(config(classes=[1])), DistillConfig())
    with pytest.raises(DistillError, match="3 channels are named, the student has 16"):
        Distillation(tiny_model, tiny_model, DistillConfig(), [0, 1, 2])
    wide = build_model(config(rpn__anchor_scale=9.0))
    with pytest.raises(DistillError, match=r"anchor_scale 9\.0 no level .* 4 times as large"):
        Distillation(wide, wide, DistillConfig(zoom=4))


def part(channels: int = 16, **changes: Any) -> Any:
    """As much of a network as is looked at before its layers are."""
    layout = SimpleNamespace(channels=channels, features={"p3": 8}, rpn_levels=["3"])
    return SimpleNamespace(config=config(**changes), layout=layout)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"rpn__anchor_scale": 6.0}, "rpn.anchor_scale"),
        ({"rpn__anchor_ratios": [0.5]}, "rpn.anchor_ratios"),
        ({"box_head__box_weights": [1.0] * 4}, "box_head.box_weights"),
        ({"box_head__activation": "softmax"}, "box_head.activation"),
        ({"box_head__class_agnostic": False}, "box_head.class_agnostic"),
        ({"mask_head__class_agnostic": False}, "mask_head.class_agnostic"),
        ({"mask_head__output_size": 12}, "mask_head.output_size"),
        ({"classes": [2, 1]}, "classes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_answers_must_mean_the_same(change: dict[str, Any], name: str) -> None:
    with pytest.raises(DistillError, match=rf"the teacher's {name} is .*, the student's"):
        Distillation(part(), part(**change), DistillConfig())


def test_first_stage_by_hand() -> None:
    """Two anchors: the teacher gives .5 to one and nothing to the other."""
    distillation = Distillation(part(channels=2), part(channels=2), DistillConfig())

    def outputs(features: list[float], logits: list[float], deltas: float) -> dict[str, Any]:
        return {
            "p3": tf.reshape(tf.constant(features), (1, 1, 1, 2)),
            "rpn_logits_3": tf.reshape(tf.constant(logits), (1, 1, 1, 2)),
            "rpn_deltas_3": tf.fill((1, 1, 1, 8), deltas),
        }

    theirs = outputs([1.0, 3.0], [0.0, -30.0], 0.0)
    same = distillation.first_stage_losses(outputs([2.0, 3.0], [0.0, -30.0], 0.0), theirs)
    # squared error 1 over squared deviations 1 + 1 (and a thousandth of the count)
    assert float(same["distill_feature"]) == pytest.approx(1 / 2.002)
    assert float(same["distill_rpn"]) == pytest.approx(0, abs=1e-5)
    moved = distillation.first_stage_losses(outputs([1.0, 3.0], [0.0, -30.0], 1.0), theirs)
    # four deltas 1 off, for half an anchor; counted by the half anchor and 1
    assert float(moved["distill_rpn"]) == pytest.approx(4 * 0.5 / 1.5, rel=1e-4)
    surer = distillation.first_stage_losses(
        outputs([1.0, 3.0], [math.log(3.0), -30.0], 0.0), theirs
    )
    # .75 for .5: divergence log(2 / sqrt 3), times the squared gap of .25
    expected = np.log(2 / np.sqrt(3)) * 0.25**2 / 1.5
    assert float(surer["distill_rpn"]) == pytest.approx(expected, rel=1e-3)


def test_boxes_are_learnt_where_the_teacher_sees_an_object() -> None:
    """With softmax the first column is the background, which has no box."""
    made = part(box_head__activation="softmax", box_head__class_agnostic=False)
    answer = {"logits": tf.constant([[20.0, 0, 0], [0, 0, 20.0]]), "deltas": tf.zeros((2, 8))}
    made.box_head = lambda features, training: answer
    distillation = Distillation(made, made, DistillConfig())
    rois, weight = tf.constant([[0.0, 0, 20, 20], [10, 10, 40, 40]]), tf.ones(2)

    def boxes(moved: list[list[float]]) -> float:
        head = {"logits": answer["logits"], "deltas": tf.constant(moved)}
        return float(distillation.box_losses(head, lambda _: None, rois, weight)["distill_box"])

    still = [0.0] * 4
    assert boxes([still + still, still + still]) == pytest.approx(0, abs=1e-6)
    assert boxes([[9.0] * 4 + [9.0] * 4, still + still]) == pytest.approx(0, abs=1e-6)
    assert boxes([still + still, [9.0] * 4 + still]) == pytest.approx(0, abs=1e-6)
    assert boxes([still + still, still + [9.0] * 4]) > 0.1


def test_no_gradient_reaches_the_teachers_heads() -> None:
    """Its weights may be in the tape where a network teaches itself."""
    made = part()
    scale = tf.Variable(1.0)
    made.box_head = lambda features, training: {
        "logits": scale * tf.ones((2, 2)), "deltas": scale * tf.ones((2, 4)),
    }  # fmt: skip
    made.mask_head = lambda features, training: {"logits": scale * tf.ones((2, 4, 4, 1))}
    distillation = Distillation(made, made, DistillConfig())
    rois, weight = tf.constant([[0.0, 0, 20, 20], [10, 10, 40, 40]]), tf.ones(2)
    with tf.GradientTape() as tape:
        head = {"logits": tf.zeros((2, 2)), "deltas": tf.zeros((2, 4))}
        found = distillation.box_losses(head, lambda _: None, rois, weight)
        found["mask"] = distillation.mask_loss(tf.zeros((2, 4, 4)), lambda _: None, weight)
        value = tf.add_n(list(found.values()))
    assert float(value) > 0
    assert tape.gradient(value, scale) is None


def made_up(box: dict[str, Any], mask: Any = None, **changes: Any) -> Distillation:
    """A teacher that answers the same whatever it sees, and teaches itself."""
    teacher = part(**changes)
    teacher.box_head = lambda features, training: {k: tf.constant(v) for k, v in box.items()}
    teacher.mask_head = lambda features, training: {"logits": tf.constant(mask)}
    return Distillation(teacher, teacher, DistillConfig())


ROIS = tf.constant([[0.0, 0, 20, 20], [10, 10, 40, 40], [5, 5, 9, 9]])
STILL = np.zeros((3, 4), np.float32)


def test_class_scores_by_hand() -> None:
    """The teacher says .5 of both classes, the student .75; the third region is padding."""
    distillation = made_up({"logits": np.zeros((3, 2), np.float32), "deltas": STILL})
    head = {"logits": tf.fill((3, 2), math.log(3.0)), "deltas": tf.constant(STILL)}
    found = distillation.box_losses(head, lambda _: None, ROIS, tf.constant([1.0, 1, 0]))
    # divergence log(2 / sqrt 3) of each class, added up; the mean of two regions
    assert float(found["distill_class"]) == pytest.approx(2 * math.log(2 / 3**0.5), rel=1e-3)


def test_softmax_scores_by_hand() -> None:
    """Shares 1/2, 1/4, 1/4 for 1/3 each: what the teacher holds likely weighs most."""
    theirs = np.tile(np.float32([math.log(2), 0, 0]), (3, 1))
    distillation = made_up(
        {"logits": theirs, "deltas": np.zeros((3, 4), np.float32)}, box_head__activation="softmax"
    )
    head = {"logits": tf.zeros((3, 3)), "deltas": tf.constant(STILL)}
    found = distillation.box_losses(head, lambda _: None, ROIS, tf.constant([1.0, 0, 1]))
    expected = 0.5 * math.log(0.5 * 3) + 0.5 * math.log(0.25 * 3)
    assert float(found["distill_class"]) == pytest.approx(expected, rel=1e-4)


def test_boxes_count_by_how_certain_the_teacher_is() -> None:
    """Two regions, .75 and .5 certain; of the second the student's box is another one."""
    logits = np.float32([[math.log(3), -9], [0, -9], [9, 9]])
    distillation = made_up({"logits": logits, "deltas": STILL})
    deltas = STILL.copy()
    deltas[1, 0] = 10.0 * 2  # two widths to the right, by box weights of 10
    head = {"logits": tf.constant(logits), "deltas": tf.constant(deltas)}
    found = distillation.box_losses(head, lambda _: None, ROIS, tf.constant([1.0, 1, 0]))
    # 1 - GIoU of a square and one a side away from it: 1 + 1/3
    assert float(found["distill_box"]) == pytest.approx((4 / 3) * 0.5 / (0.75 + 0.5 + 1), rel=1e-3)


def test_masks_are_a_mean_over_regions() -> None:
    mask = np.zeros((3, 2, 2, 1), np.float32)  # .5 everywhere
    distillation = made_up({}, mask)
    logits = tf.fill((3, 2, 2), math.log(3.0))
    found = distillation.mask_loss(logits, lambda _: None, tf.constant([1.0, 1, 0]))
    assert float(found) == pytest.approx(math.log(2 / 3**0.5), rel=1e-3)


def test_features_are_a_mean_over_levels() -> None:
    layout = SimpleNamespace(channels=1, features={"p3": 8, "p4": 16}, rpn_levels=["3"])
    made = SimpleNamespace(config=config(), layout=layout)

    def outputs(p3: list[float], p4: list[float]) -> dict[str, Any]:
        maps = {"p3": p3, "p4": p4, "rpn_logits_3": [0.0, 0.0], "rpn_deltas_3": [0.0] * 8}
        return {k: tf.reshape(tf.constant(v), (1, 1, 2, -1)) for k, v in maps.items()}

    theirs = outputs([1.0, 3.0], [2.0, 4.0])
    distillation = Distillation(made, made, DistillConfig())
    found = distillation.first_stage_losses(outputs([2.0, 3.0], [2.0, 4.0]), theirs)
    # squared error 1 over squared deviations 1 + 1 on one level, nothing on the other
    assert float(found["distill_feature"]) == pytest.approx(0.5 / 2.002)


def test_kind_and_anchors_of_networks_without_a_pyramid() -> None:
    def without(**changes: Any) -> Any:
        model = from_dict(changed(TINY_2GO, **changes)).model
        return SimpleNamespace(config=model, layout=SimpleNamespace(channels=128))

    with pytest.raises(DistillError, match=r"teacher's backbone\.kind is .*, the student's"):
        Distillation(part(), without(), DistillConfig())
    other = without(rpn__anchor_boxes=[[-9.0, -9.0, 9.0, 9.0]] * 3)
    with pytest.raises(DistillError, match=r"teacher's rpn\.anchor_boxes is .*, the student's"):
        Distillation(without(), other, DistillConfig())
    Distillation(without(), without(), DistillConfig())
