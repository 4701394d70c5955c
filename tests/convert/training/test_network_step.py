"""One training step: what must not be learnt leaves no gradient, and nothing breaks when empty."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.arch import build_model
from edgemask_convert.arch.manifest import build_manifest
from edgemask_convert.arch.model import RPN_LEVELS, RPN_STRIDES
from edgemask_convert.config import from_dict
from edgemask_convert.training.network_step import StepLosses, propose

from edgemask.postprocess import proposals

from ..conftest import CLASSES, TINY, TINY_POSE

pytestmark = pytest.mark.usefixtures("eager")

SEED = np.array([1, 2], np.int32)


def losses(step: StepLosses, batch: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the losses of one batch as numbers."""
    tensors = {key: tf.constant(value) for key, value in batch.items() if key != "image_id"}
    return {key: float(value) for key, value in step(tensors, SEED, training=False).items()}


def gradients(
    step: StepLosses, batch: dict[str, np.ndarray], loss: str, weights: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Return the gradients of one loss with regard to some weights; 0 where there is none."""
    tensors = {key: tf.constant(value) for key, value in batch.items() if key != "image_id"}
    variables = [weight.value for weight in weights.values()]
    with tf.GradientTape() as tape:
        value = step(tensors, SEED, training=False)[loss]
    found = tape.gradient(value, variables, unconnected_gradients="zero")
    return dict(zip(weights, (tf.convert_to_tensor(g).numpy() for g in found), strict=True))


@pytest.fixture(scope="module")
def step(tiny_model: Any, tiny_config: Any) -> StepLosses:
    """The losses of the tiny network."""
    return StepLosses(tiny_model, tiny_config)


def test_total_is_the_weighted_sum(step: StepLosses, batch: dict[str, np.ndarray]) -> None:
    found = losses(step, batch)
    t = step.config.train
    expected = (
        t.weight_rpn_class * found["rpn_class"]
        + t.weight_rpn_box * found["rpn_box"]
        + t.weight_class * found["class"]
        + t.weight_box * found["box"]
        + t.weight_mask * found["mask"]
    )
    assert found["total"] == pytest.approx(expected, rel=1e-5)
    assert all(value > 0 for value in found.values())


def test_repeatable(step: StepLosses, batch: dict[str, np.ndarray]) -> None:
    assert losses(step, batch) == losses(step, batch)


def test_no_objects(step: StepLosses, batch: dict[str, np.ndarray]) -> None:
    """Images without objects teach background only, and nothing is divided by zero."""
    batch["valid"][:] = batch["has_mask"][:] = 0
    batch["boxes"][:] = 0
    found = losses(step, batch)
    assert found["rpn_box"] == found["box"] == found["mask"] == 0
    assert found["rpn_class"] > 0
    assert found["class"] > 0
    assert np.isfinite(found["total"])


def test_nothing_is_known(step: StepLosses, batch: dict[str, np.ndarray]) -> None:
    """No objects and not exhaustively labelled: there is nothing to learn."""
    batch["valid"][:] = batch["has_mask"][:] = batch["exhaustive"][:] = 0
    batch["boxes"][:] = 0
    assert set(losses(step, batch).values()) == {0.0}


def test_boxes_without_masks(step: StepLosses, batch: dict[str, np.ndarray]) -> None:
    batch["has_mask"][:] = 0
    found = losses(step, batch)
    assert found["mask"] == 0
    assert found["box"] > 0


def test_unlabelled_class_is_not_background(
    step: StepLosses, tiny_model: Any, batch: dict[str, np.ndarray]
) -> None:
    """Where class 2 is not labelled, its column learns from its own objects only."""
    batch["labeled"][:, 1] = 0
    weights = {"kernel": tiny_model.box_head.get_layer("box_logits").kernel}
    with_object = gradients(step, batch, "class", weights)["kernel"]
    assert np.abs(with_object).max(axis=0).min() > 0  # a triangle is there: it is learnt
    batch["valid"][0, 1] = 0
    without = gradients(step, batch, "class", weights)["kernel"]
    assert np.abs(without[:, 0]).max() > 0
    assert np.abs(without[:, 1]).max() == 0


def test_rpn_learns_background_only_where_all_classes_are_labelled(
    step: StepLosses, batch: dict[str, np.ndarray]
) -> None:
    batch["valid"][:] = batch["has_mask"][:] = 0
    batch["boxes"][:] = 0
    assert losses(step, batch)["rpn_class"] > 0
    batch["labeled"][:, 1] = 0
    assert losses(step, batch)["rpn_class"] == 0


def test_crowd_is_not_background(step: StepLosses, batch: dict[str, np.ndarray]) -> None:
    batch["valid"][:] = batch["has_mask"][:] = 0
    batch["boxes"][:] = 0
    batch["ignore"][:, 0] = [-1e4, -1e4, 1e4, 1e4]
    found = losses(step, batch)
    assert found["rpn_class"] == 0
    assert found["class"] == 0


def test_class_specific_masks_learn_their_own_channel(batch: dict[str, np.ndarray]) -> None:
    config = from_dict(TINY)
    config.model.mask_head.class_agnostic = False
    # Random weights decide which regions are sampled; in some draws a class has none.
    keras.utils.set_random_seed(3)
    model = build_model(config.model)
    step = StepLosses(model, config)
    weights = {"bias": model.mask_head.get_layer("mask_logits").bias}
    both = gradients(step, batch, "mask", weights)["bias"]
    assert (np.abs(both) > 0).all()
    batch["labels"][:] = 1
    second = gradients(step, batch, "mask", weights)["bias"]
    assert second[0] == 0
    assert abs(second[1]) > 0


def test_masks_do_not_move_boxes(
    step: StepLosses, tiny_model: Any, batch: dict[str, np.ndarray]
) -> None:
    weights = {"deltas": tiny_model.box_head.get_layer("box_deltas").kernel}
    assert np.abs(gradients(step, batch, "mask", weights)["deltas"]).max() == 0
    assert np.abs(gradients(step, batch, "box", weights)["deltas"]).max() > 0


def test_proposals_equal_the_device(step: StepLosses, tiny_config: Any) -> None:
    """One definition of anchors, box coding, order of cells and NMS in training and at run time."""
    random = np.random.default_rng(4)
    raw = {}
    for level, stride in zip(RPN_LEVELS, RPN_STRIDES, strict=True):
        cells = -(-64 // stride)
        raw[f"rpn_logits_{level}"] = random.normal(0, 2, (1, cells, cells, 1)).astype("f4")
        raw[f"rpn_deltas_{level}"] = random.normal(0, 0.3, (1, cells, cells, 4)).astype("f4")
    rpn = build_manifest(tiny_config.model, CLASSES)["rpn"] | {"pre_nms": 10_000, "post_nms": 20}
    expected = proposals(raw, lambda name: (1.0, 0), rpn, 64, 64)
    logits = tf.concat([tf.reshape(raw[f"rpn_logits_{v}"], (1, -1)) for v in RPN_LEVELS], 1)
    deltas = tf.concat([tf.reshape(raw[f"rpn_deltas_{v}"], (1, -1, 4)) for v in RPN_LEVELS], 1)
    decoded, found = propose(logits, deltas, step.anchors, 64, 20, rpn["nms_threshold"])
    assert decoded.shape == (1, len(step.anchors), 4)
    assert len(expected) == 20
    np.testing.assert_allclose(found[0], expected, atol=1e-3)


@pytest.fixture(scope="module")
def pose_step(tiny_pose: Any) -> StepLosses:
    """The losses of the tiny network with keypoints."""
    return StepLosses(tiny_pose, from_dict(TINY_POSE))


def test_keypoints_are_part_of_the_total(
    pose_step: StepLosses, step: StepLosses, batch: dict[str, np.ndarray]
) -> None:
    plain, found = losses(step, batch), losses(pose_step, batch)
    assert "keypoint" not in plain
    assert found["keypoint"] > 0
    weight = pose_step.config.train.weight_keypoint
    assert found["total"] == pytest.approx(plain["total"] + weight * found["keypoint"], rel=1e-4)


def test_persons_without_keypoints_teach_everything_else(
    pose_step: StepLosses, batch: dict[str, np.ndarray]
) -> None:
    labelled = losses(pose_step, batch)
    batch["keypoints"][:] = 0
    found = losses(pose_step, batch)
    assert found["keypoint"] == 0
    for name in ("rpn_class", "rpn_box", "class", "box", "mask"):
        assert found[name] == pytest.approx(labelled[name], rel=1e-5)


def test_keypoints_of_another_class_teach_nothing(
    pose_step: StepLosses, batch: dict[str, np.ndarray]
) -> None:
    batch["labels"][:] = 1
    assert losses(pose_step, batch)["keypoint"] == 0


def test_keypoints_without_masks_are_learnt(
    pose_step: StepLosses, batch: dict[str, np.ndarray]
) -> None:
    batch["has_mask"][:] = 0
    found = losses(pose_step, batch)
    assert found["mask"] == 0
    assert found["keypoint"] > 0


def test_each_keypoint_has_its_own_heatmap(
    pose_step: StepLosses, tiny_pose: Any, batch: dict[str, np.ndarray]
) -> None:
    weights = {"bias": tiny_pose.keypoint_head.get_layer("keypoint_logits").kernel}
    found = np.abs(gradients(pose_step, batch, "keypoint", weights)["bias"]).max(axis=(0, 1, 2))
    assert (found[:5] > 0).all()  # the five that the batch labels
    assert (found[5:] == 0).all()


def test_keypoints_do_not_move_boxes(
    pose_step: StepLosses, tiny_pose: Any, batch: dict[str, np.ndarray]
) -> None:
    weights = {
        "deltas": tiny_pose.box_head.get_layer("box_deltas").kernel,
        "lateral": tiny_pose.first_stage.get_layer("fpn_lateral4").kernel,
    }
    found = gradients(pose_step, batch, "keypoint", weights)
    assert np.abs(found["deltas"]).max() == 0
    assert np.abs(found["lateral"]).max() > 0


def test_enlarged_regions(tiny_pose: Any, batch: dict[str, np.ndarray]) -> None:
    """A keypoint beside its box is learnt if the regions are large enough."""
    batch["keypoints"][:] = 0
    batch["keypoints"][0, 0, 0] = [50, 28, 2]  # 10 pixels right of the box 4 6 40 50
    config = from_dict(TINY_POSE)
    assert losses(StepLosses(tiny_pose, config), batch)["keypoint"] == 0
    config.model.keypoint_head.box_scale = 2.0
    assert losses(StepLosses(tiny_pose, config), batch)["keypoint"] > 0


@pytest.mark.parametrize(
    ("only", "taught"),
    [
        (["keypoint_head"], {"keypoint"}),
        (["mask_head", "keypoint_head"], {"mask", "keypoint"}),
        (["box_head"], {"class", "box"}),
        (["backbone"], {"rpn_class", "rpn_box", "class", "box", "mask", "keypoint"}),
    ],
)
def test_only_losses_that_teach_a_trained_stage(
    tiny_pose: Any, batch: dict[str, np.ndarray], only: list[str], taught: set[str]
) -> None:
    config = from_dict(TINY_POSE)
    config.train.only = only
    found = losses(StepLosses(tiny_pose, config), batch)
    assert found.keys() == taught | {"total"}


def test_no_gradient_reaches_a_stage_that_is_left_as_it_is(
    tiny_pose: Any, batch: dict[str, np.ndarray]
) -> None:
    config = from_dict(TINY_POSE)
    config.train.only = ["keypoint_head"]
    weights = {
        "lateral": tiny_pose.first_stage.get_layer("fpn_lateral4").kernel,
        "keypoints": tiny_pose.keypoint_head.get_layer("keypoint_stem").kernel,
    }
    found = gradients(StepLosses(tiny_pose, config), batch, "total", weights)
    assert np.abs(found["lateral"]).max() == 0
    assert np.abs(found["keypoints"]).max() > 0


def test_scores_do_not_move_boxes(
    step: StepLosses, tiny_model: Any, batch: dict[str, np.ndarray]
) -> None:
    """The IoU that a score learns is a number: a worse box would make it easier to learn."""
    layers = {"rpn_class": (tiny_model.first_stage, "rpn_deltas"),
              "class": (tiny_model.box_head, "box_deltas")}  # fmt: skip
    for loss, (stage, layer) in layers.items():
        weights = {"deltas": stage.get_layer(layer).kernel}
        assert np.abs(gradients(step, batch, loss, weights)["deltas"]).max() == 0, loss


def test_what_is_labelled_is_known_of_each_image(
    step: StepLosses, tiny_model: Any, batch: dict[str, np.ndarray]
) -> None:
    """The first image teaches nothing at all, the second only that class 1 is not there."""
    batch["valid"][:] = batch["has_mask"][:] = batch["boxes"][:] = 0
    batch["exhaustive"][0] = batch["labeled"][1, 1] = 0
    weights = {"kernel": tiny_model.box_head.get_layer("box_logits").kernel}
    found = gradients(step, batch, "class", weights)["kernel"]
    assert np.abs(found[:, 0]).max() > 0
    assert np.abs(found[:, 1]).max() == 0


def test_a_cropped_mask_keeps_its_place(step: StepLosses, batch: dict[str, np.ndarray]) -> None:
    """A bitmap divides the box before cropping: here its right half is what is seen."""
    batch["has_mask"][0, 1] = 0
    batch["bitmaps"][0, 0] = 255
    whole = losses(step, batch)["mask"]
    batch["full_boxes"][0, 0] = [-32, 6, 40, 50]
    batch["bitmaps"][0, 0, :, :32] = 0
    assert losses(step, batch)["mask"] == pytest.approx(whole, rel=0.02)


class FakeDistillation:
    """A teacher that sees crops twice as large and knows of regions below 20 x 20 pixels."""

    zoom = 2

    def first_stage(self, image: Any) -> dict[str, Any]:
        self.image = image
        return {}

    def first_stage_losses(self, ours: Any, theirs: Any) -> dict[str, Any]:
        return {"distill_feature": tf.constant(1.0), "distill_rpn": tf.constant(2.0)}

    def trust(self, rois: Any) -> Any:
        return tf.cast(tf.reduce_prod(rois[:, 2:] - rois[:, :2], -1) < 400, tf.float32)

    def box_losses(self, head: Any, pool: Any, rois: Any, weight: Any) -> dict[str, Any]:
        self.pools, self.rois, self.weight = [pool], rois, weight
        return {"distill_class": tf.constant(3.0), "distill_box": tf.constant(4.0)}

    def mask_loss(self, logits: Any, pool: Any, weight: Any, column: Any = None) -> Any:
        self.pools.append(pool)
        self.mask_weight = weight
        return tf.constant(5.0)


def test_what_a_teacher_is_asked(tiny_model: Any, batch: dict[str, np.ndarray]) -> None:
    shares = {"feature": 0.1, "rpn": 0.2, "class": 0.3, "box": 0.4, "mask": 0.5}
    config = from_dict(TINY | {"distill": {f"weight_{k}": v for k, v in shares.items()}})
    teacher: Any = FakeDistillation()
    step = StepLosses(tiny_model, config, teacher)
    alone = losses(StepLosses(tiny_model, config), batch)
    batch["closeup"] = batch["image"].repeat(2, axis=1).repeat(2, axis=2)
    batch["closeup"][:, ::2] //= 2
    found = losses(step, batch)
    sums = sum(shares[k] * n for n, k in enumerate(shares, 1))
    assert found["total"] == pytest.approx(alone["total"] + sums, rel=1e-5)
    np.testing.assert_allclose(teacher.image, (batch["closeup"].astype("f4") - 128) / 128)
    # regions of twice the size, and only the small ones
    step._pool = lambda pyramid, head, rois: rois  # type: ignore[method-assign]
    asked, asked_masks = (pool(None).numpy().reshape(-1, 4) for pool in teacher.pools)
    rois, weight = teacher.rois.numpy(), teacher.weight.numpy()
    np.testing.assert_array_equal(asked, 2 * rois)
    small = (rois[:, 2:] - rois[:, :2]).prod(1) < 400
    assert set(weight[small]) | {0} == {0, 1}
    assert weight[small].any()
    assert not weight[~small].any()
    assert (~small).any()
    # both objects are larger than that
    assert ((asked_masks[:, 2:] - asked_masks[:, :2]).prod(1) > 4 * 400).any()
    assert not teacher.mask_weight.numpy()[
        (asked_masks[:, 2:] - asked_masks[:, :2]).prod(1) >= 4 * 400
    ].any()
