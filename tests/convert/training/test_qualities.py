"""Scores learn how well the boxes fit, which are decoded as the device does it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.config import from_dict
from edgemask_convert.training import losses as loss_functions
from edgemask_convert.training import network_step
from edgemask_convert.training.network_step import StepLosses

from edgemask import boxes as bx

from ..conftest import TINY_POSE
from .test_network_step import losses

pytestmark = pytest.mark.usefixtures("eager")


class Seen:
    """What the loss functions are given; they go on as before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: dict[str, list[list[np.ndarray]]] = {}
        for module, name in (
            (loss_functions, "quality_focal"), (loss_functions, "box_giou"),
            (loss_functions, "class_quality"), (network_step, "sample_rois"),
        ):  # fmt: skip
            self._watch(monkeypatch, module, name)

    def _watch(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        function = getattr(module, name)
        calls = self.calls.setdefault(name, [])

        def watched(*arguments: Any) -> Any:
            found = function(*arguments)
            values = found if name == "sample_rois" else arguments
            calls.append([np.asarray(value) for value in values])
            return found

        monkeypatch.setattr(module, name, watched)


def fit(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """IoU of boxes in pairs."""
    return np.array([
        bx.iou_matrix(a[None], b[None])[0, 0]
        for a, b in zip(predicted.reshape(-1, 4), target.reshape(-1, 4), strict=True)
    ])  # fmt: skip


def test_scores_learn_the_iou(
    tiny_model: Any, tiny_config: Any, batch: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen = Seen(monkeypatch)
    losses(StepLosses(tiny_model, tiny_config), batch)
    (anchors, regions) = seen.calls["box_giou"]
    for (predicted, target, positive, _), quality in (
        (anchors, seen.calls["quality_focal"][0][1]),
        (regions, seen.calls["class_quality"][0][1].sum(-1)),
    ):
        expected = fit(predicted, target) * positive.ravel()
        assert 0 < expected.max() < 1
        np.testing.assert_allclose(quality.ravel(), expected, atol=1e-5)


def test_regions_are_refined_as_on_the_device(
    tiny_model: Any, tiny_config: Any, batch: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The head moves each region by a fifth of its width and makes it higher."""
    seen = Seen(monkeypatch)

    def head(features: Any, training: bool) -> dict[str, Any]:
        count = features.shape[0]
        deltas = tf.tile(tf.constant([[2.0, 0.0, 0.0, 1.0]]), (count, 1))
        return {"logits": tf.zeros((count, 2)), "deltas": deltas}

    losses(StepLosses(dataclasses.replace(tiny_model, box_head=head), tiny_config), batch)
    rois = seen.calls["sample_rois"][0][0].reshape(-1, 4)
    deltas = np.tile(np.float32([2, 0, 0, 1]), (len(rois), 1))
    assert tiny_config.model.box_head.box_weights == [10.0, 10.0, 5.0, 5.0]
    expected = bx.decode(deltas, rois, (10.0, 10.0, 5.0, 5.0))
    np.testing.assert_allclose(seen.calls["box_giou"][1][0], expected, rtol=1e-4, atol=1e-3)


def test_keypoints_are_those_of_their_class(tiny_pose: Any, batch: dict[str, np.ndarray]) -> None:
    """Wherever it is among the network's classes: here it is the second."""
    config = from_dict(TINY_POSE)
    config.model.classes = [2, 1]
    step = StepLosses(tiny_pose, config)
    assert losses(step, batch)["keypoint"] == 0
    batch["labels"][0, 0] = 1
    assert losses(step, batch)["keypoint"] > 0
