"""What a configuration decides about a training step."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.arch import build_model
from edgemask_convert.config import from_dict
from edgemask_convert.training import losses as loss_functions
from edgemask_convert.training.network_step import StepLosses

from ..conftest import TINY, TINY_2GO, TINY_POSE
from .test_network_step import SEED, FakeDistillation, losses

pytestmark = pytest.mark.usefixtures("eager")


@pytest.mark.parametrize("given", [False, True])
def test_anchors_of_many_shapes_are_assigned_by_iou(
    tiny_model: Any, tiny_2go: Any, batch: dict[str, np.ndarray], given: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Then some overlap with an object too much for background, and learn nothing."""
    weights: list[np.ndarray] = []
    focal = loss_functions.quality_focal

    def watched(logits: Any, quality: Any, weight: Any, normaliser: Any) -> Any:
        weights.append(np.asarray(weight))
        return focal(logits, quality, weight, normaliser)

    monkeypatch.setattr(loss_functions, "quality_focal", watched)
    model, values = (tiny_2go, TINY_2GO) if given else (tiny_model, TINY)
    losses(StepLosses(model, from_dict(values)), batch)
    assert (weights[0] == 0).any() == given


def test_a_teacher_is_asked_for_the_mask_of_the_class(batch: dict[str, np.ndarray]) -> None:
    """Where each class has a mask of its own."""

    class Teacher(FakeDistillation):
        zoom = 1

        def mask_loss(self, logits: Any, pool: Any, weight: Any, column: Any = None) -> Any:
            self.column = column
            return tf.constant(0.0)

    batch["labels"][:] = 1
    for agnostic in (True, False):
        values = copy.deepcopy(TINY)
        values["model"]["mask_head"]["class_agnostic"] = agnostic
        config, teacher = from_dict(values), Teacher()
        losses(StepLosses(build_model(config.model), config, teacher), batch)  # type: ignore[arg-type]
        if agnostic:
            assert teacher.column is None
        else:
            assert set(teacher.column.numpy()) == {1}


def test_how_wide_a_keypoint_is(tiny_pose: Any, batch: dict[str, np.ndarray]) -> None:
    found = set()
    for sigma in (0.0, 1.0, 3.0):
        config = from_dict(TINY_POSE)
        config.train.keypoint_sigma = sigma
        found.add(losses(StepLosses(tiny_pose, config), batch)["keypoint"])
    assert len(found) == 3


def test_a_stage_that_is_not_trained_keeps_its_statistics(batch: dict[str, np.ndarray]) -> None:
    """Although its loss teaches the first stage, which is trained."""
    values = copy.deepcopy(TINY_POSE)
    values["train"]["only"] = ["backbone"]
    config = from_dict(values)
    model = build_model(config.model)
    before = {name: np.asarray(weight).copy() for name, weight in model.named_weights().items()}
    tensors = {key: tf.constant(value) for key, value in batch.items() if key != "image_id"}
    assert float(StepLosses(model, config)(tensors, SEED, training=True)["keypoint"]) > 0
    moved = {name for name, weight in model.named_weights().items()
             if (np.asarray(weight) != before[name]).any()}  # fmt: skip
    assert moved
    assert {name.split("/")[0] for name in moved} == {"backbone"}


def test_a_teacher_teaches_heads_on_a_backbone_that_stays(
    tiny_model: Any, batch: dict[str, np.ndarray]
) -> None:
    """What it says of the backbone's own outputs is left out."""
    teacher: Any = FakeDistillation()
    teacher.zoom = 1
    found = {}
    for only in (["box_head"], ["mask_head"], ["box_head", "mask_head"]):
        config = from_dict(TINY | {"train": TINY["train"] | {"only": only}})
        found[tuple(only)] = losses(StepLosses(tiny_model, config, teacher), batch)
    box = {"class", "box", "distill_class", "distill_box", "total"}
    mask = {"mask", "distill_mask", "total"}
    assert [set(names) for names in found.values()] == [box, mask, box | mask]
    values = found["mask_head",]
    assert values["total"] == pytest.approx(2 * values["mask"] + 2 * 5.0, rel=1e-5)
