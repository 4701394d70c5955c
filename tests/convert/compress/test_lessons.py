"""What a network says about photographs, and what a narrower one is to learn from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edgemask_convert.arch.keras_stages import float_pipeline
from edgemask_convert.compress.lessons import Lesson, LessonError, lessons

from edgemask.geometry import fit_input, resize
from edgemask.pipeline import Pipeline
from edgemask.quant import sigmoid

from ..conftest import CLASSES


@pytest.fixture(scope="module")
def taught(tiny_2go: Any, drawn_images: list[np.ndarray]) -> list[Lesson]:
    return list(lessons(float_pipeline(tiny_2go, CLASSES), drawn_images[:2]))


def test_two_views_of_each_photograph(taught: list[Lesson]) -> None:
    assert len(taught) == 4
    for plain, mirrored in (taught[:2], taught[2:]):
        count, masks = len(plain.regions), len(plain.masks)
        assert plain.regions.shape == (count, 6, 6, 128)
        assert plain.probabilities.shape == (count, 3)
        assert plain.columns.shape == (count, min(3, len(CLASSES)))
        assert plain.deltas.shape == (*plain.columns.shape, 4)
        assert plain.mask_regions.shape == (masks, 6, 6, 128)
        assert plain.masks.shape == (masks, 24, 24)
        assert plain.objectness.shape == (*plain.features.shape[1:3], 3)
        assert abs(count - len(mirrored.regions)) <= 1
        np.testing.assert_array_equal(plain.masks[:, :, ::-1], mirrored.masks)
        np.testing.assert_allclose(plain.probabilities.sum(1), 1, atol=2e-3)


def test_the_features_are_those_of_the_network(
    tiny_2go: Any, drawn_images: list[np.ndarray], taught: list[Lesson]
) -> None:
    size = fit_input(*drawn_images[0].shape[:2], 64, 16)
    image = (resize(drawn_images[0], size)[None].astype(np.float32) - 128) / 128
    for lesson, seen in ((taught[0], image), (taught[1], image[:, :, ::-1])):
        own = tiny_2go.first_stage(np.ascontiguousarray(seen), training=False)
        np.testing.assert_allclose(lesson.features, own["c4"], rtol=1e-2, atol=1e-2)
        deltas = np.asarray(own["rpn_deltas_4"])[0].reshape(lesson.rpn_deltas.shape)
        np.testing.assert_allclose(lesson.rpn_deltas, deltas, rtol=1e-2, atol=1e-2)


class Says:
    """A box head with the same logits for all regions, others at every call; boxes as they are."""

    def __init__(self, head: Any, *logits: list[float]) -> None:
        self.head = head
        self.logits = list(logits)

    def quantization(self, name: str) -> tuple[float, int]:
        return self.head.quantization(name)

    def run(self, rois: np.ndarray) -> dict[str, np.ndarray]:
        logits = np.tile(np.float32(self.logits.pop(0)), (len(rois), 1))
        return {"logits": logits, "deltas": np.zeros((len(rois), 8), np.float32)}


def saying(model: Any, *logits: list[float]) -> Pipeline:
    teacher = float_pipeline(model, CLASSES)
    head = Says(teacher.stages["box_head"], *logits)
    return Pipeline(teacher.manifest, {**teacher.stages, "box_head": head})


def test_probabilities_are_the_mean_of_both_views(
    tiny_2go: Any, drawn_images: list[np.ndarray]
) -> None:
    teacher = saying(tiny_2go, [0, 50, 0], [0, 0, 50])
    for lesson in lessons(teacher, drawn_images[:1]):
        np.testing.assert_allclose(lesson.probabilities, [[0, 0.5, 0.5]] * len(lesson.regions))
        np.testing.assert_allclose(lesson.deltas, 0, atol=2e-2)  # but where the image ends
        assert len(lesson.masks)


def test_the_box_head_s_verdict_counts_half(tiny_2go: Any, drawn_images: list[np.ndarray]) -> None:
    """If it sees nothing, half of what the RPN believes; more where it sees something."""
    found = {}
    for name, logits in (("nothing", [50, 0, 0]), ("something", [0, 50, 0])):
        teacher = saying(tiny_2go, logits, logits)
        found[name] = next(iter(lessons(teacher, drawn_images[:1])))
    size = fit_input(*drawn_images[0].shape[:2], 64, 16)
    image = (resize(drawn_images[0], size)[None].astype(np.float32) - 128) / 128
    logits = np.asarray(tiny_2go.first_stage(image, training=False)["rpn_logits_4"])[0]
    belief = sigmoid(logits)
    np.testing.assert_allclose(found["nothing"].objectness, belief / 2, atol=1e-3)
    assert not len(found["nothing"].masks)
    more = found["something"].objectness - belief / 2
    assert more.min() > -1e-3
    assert more.max() == pytest.approx(0.5, abs=0.01)  # an anchor whose box is the object's


def test_a_mirrored_photograph_teaches_the_same(
    tiny_2go: Any, drawn_images: list[np.ndarray]
) -> None:
    """Both views are averaged, so neither is preferred: objects and masks are mirror images."""
    teacher = float_pipeline(tiny_2go, CLASSES)
    mirrored = np.ascontiguousarray(drawn_images[2][:, ::-1])
    here, there = (list(lessons(teacher, [image])) for image in (drawn_images[2], mirrored))
    np.testing.assert_allclose(here[0].features, there[1].features, atol=1e-3)
    np.testing.assert_allclose(here[1].features, there[0].features, atol=1e-3)


def test_no_pyramid(tiny_model: Any, drawn_images: list[np.ndarray]) -> None:
    with pytest.raises(LessonError, match="maskrcnn2go"):
        list(lessons(float_pipeline(tiny_model, CLASSES), drawn_images[:1]))
