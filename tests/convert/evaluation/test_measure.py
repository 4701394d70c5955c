"""What is measured while training."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from edgemask_convert.data.dataset import DatasetError, DatasetWarning
from edgemask_convert.evaluation.measure import DevMeasurement

from ..conftest import CLASSES


def trainer(model: Any) -> Any:
    """Stand-in: DevMeasurement reads its settings, its model and its averaged weights."""
    settings = SimpleNamespace(epochs=1.0, eval_epochs=1.0, eval_images=10)
    return SimpleNamespace(
        model=model, config=SimpleNamespace(train=settings), total_steps=4, step=4,
        averaged=contextlib.nullcontext,
    )  # fmt: skip


def dataset(coco: Any, **extra: Any) -> Any:
    coco.image(1)
    coco.add(1, [5, 5, 20, 20], area=400, **extra)
    coco.load()
    return coco


def test_all_that_is_labelled(tiny_pose: Any, coco: Any) -> None:
    labelled = dataset(coco, keypoints=[10, 10, 2] * 17, num_keypoints=17)
    dev = DevMeasurement(trainer(tiny_pose), CLASSES, labelled.path, labelled.folder)
    assert dev.due()
    assert set(dev()) == {"dev_box_AP", "dev_mask_AP", "dev_keypoint_AP"}


def test_no_zero_for_what_is_not_labelled(tiny_pose: Any, coco: Any) -> None:
    labelled = dataset(coco)
    with pytest.warns(DatasetWarning, match="no dev AP of keypoint: none is labelled in the first"):
        dev = DevMeasurement(trainer(tiny_pose), CLASSES, labelled.path, labelled.folder)
    assert set(dev()) == {"dev_box_AP", "dev_mask_AP"}


def test_nothing_to_measure(tiny_model: Any, coco: Any) -> None:
    coco.image(1)
    coco.load()
    with pytest.raises(DatasetError, match="nothing to measure: the first 1 images of"):
        DevMeasurement(trainer(tiny_model), CLASSES, coco.path, coco.folder)
