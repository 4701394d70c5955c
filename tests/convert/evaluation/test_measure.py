"""What is measured while training."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from edgemask_convert.arch import keras_stages
from edgemask_convert.config import from_dict
from edgemask_convert.data.dataset import DatasetError, DatasetWarning
from edgemask_convert.evaluation import measure
from edgemask_convert.evaluation.measure import DevMeasurement, load_truth, measure_results

from ..conftest import CLASSES, Coco


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


@pytest.fixture
def three_images(coco: Coco) -> Coco:
    for number in (1, 2, 3):
        coco.image(number)
        coco.add(number, [5, 5, 10, 10])
    coco.path.write_text(json.dumps(coco.data))
    return coco


def test_the_first_images_and_their_objects_alone(three_images: Coco) -> None:
    truth = load_truth(three_images.path, 2)
    assert [image["id"] for image in truth["images"]] == [1, 2]
    assert [entry["image_id"] for entry in truth["annotations"]] == [1, 2]
    assert len(load_truth(three_images.path)["annotations"]) == 3


@pytest.mark.parametrize("head", [{}, {"keypoint": {}}])
def test_a_model_is_measured_on_its_own_classes(
    head: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the others it finds nothing, which would count as 0; keypoints if it has them."""
    asked: dict[str, Any] = {}

    def evaluate(results: Any, truth: Any, kinds: Any, category_ids: Any) -> dict[str, Any]:
        asked.update(kinds=tuple(kinds), category_ids=category_ids)
        return {}

    monkeypatch.setattr(measure, "evaluate", evaluate)
    measure_results([], {}, {"classes": [{"id": 3}, {"id": 1}], **head})
    assert asked["category_ids"] == [3, 1]
    assert asked["kinds"] == ("bbox", "segm", *(["keypoints"] if head else []))


def make_dev(coco: Coco, monkeypatch: pytest.MonkeyPatch, **train: Any) -> tuple[Any, list[str]]:
    """A measurement of a trainer of 200 steps, and what was done with its weights."""
    done: list[str] = []

    @contextlib.contextmanager
    def averaged() -> Iterator[None]:
        done.append("averaged")
        yield
        done.append("live")

    pipeline = SimpleNamespace(manifest={"classes": CLASSES})
    monkeypatch.setattr(keras_stages, "float_pipeline", lambda *_: pipeline)
    config = from_dict({"train": {"epochs": 20.0, **train}})
    trainer = SimpleNamespace(config=config, total_steps=200, model=None, step=0, averaged=averaged)
    return DevMeasurement(trainer, CLASSES, coco.path, coco.folder), done


def test_when_it_is_due(three_images: Coco, monkeypatch: pytest.MonkeyPatch) -> None:
    dev, _ = make_dev(three_images, monkeypatch, eval_epochs=3.0, eval_images=2)
    assert len(dev.truth["images"]) == 2
    due = []
    for dev.trainer.step in range(1, 70):
        if dev.due():
            due.append(dev.trainer.step)
    assert due == [30, 60]  # an epoch has ten steps
    dev, _ = make_dev(three_images, monkeypatch, eval_epochs=0.01)
    assert dev.due()


def test_figures_are_those_of_the_averaged_weights(
    three_images: Coco, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev, done = make_dev(three_images, monkeypatch)

    def measured(*_: Any) -> dict[str, Any]:
        done.append("measured")
        return {"bbox": {"AP": 0.25}, "segm": {"AP": 0.12344}}

    monkeypatch.setattr(measure, "measure", measured)
    assert dev() == {"dev_box_AP": 0.25, "dev_mask_AP": 0.1234}
    assert done == ["averaged", "measured", "live"]
