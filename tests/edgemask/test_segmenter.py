"""The class that users meet, with the bundled pack and the bundled photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgemask
from edgemask import Segmenter, load_image
from edgemask.errors import InputError, ModelError, SourceError
from edgemask.instances import Instances
from edgemask.modelpack import load_pack

PHOTOGRAPH = Path(edgemask.__file__).parent / "assets" / "astronaut.jpg"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """The bundled people pack, on one thread."""
    return Segmenter(threads=1)


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    """The bundled photograph."""
    return load_image(PHOTOGRAPH)


def assert_same(first: Instances, second: Instances) -> None:
    """Compare two results to the last bit."""
    assert first.to_dict() == second.to_dict()


def test_one_clean_person(segmenter: Segmenter, rgb: np.ndarray) -> None:
    found = segmenter(rgb)
    assert len(found) == 1
    assert found.class_names == ["person"]
    assert found.class_ids.tolist() == [1]
    assert found.track_ids.tolist() == [-1]
    assert found.keypoints is None
    assert found.scores[0] > 0.6
    assert found.size == rgb.shape[:2]
    mask = found.masks.to_dense()[0]
    assert mask[100, 225]  # the face
    assert mask[400, 200]  # the suit
    assert not mask[50, 60]  # the flag
    assert not mask[100, 420]  # the shuttle
    assert 0.3 < mask.mean() < 0.6
    x0, y0, x1, y1 = found.boxes[0]
    assert (x0 < 60) & (y0 < 40) & (330 < x1 < 420) & (y1 > 480)


def test_array_image_and_path_are_alike(segmenter: Segmenter, rgb: np.ndarray) -> None:
    expected = segmenter(rgb)
    assert_same(segmenter(Image.fromarray(rgb)), expected)
    assert_same(segmenter(PHOTOGRAPH), expected)
    assert_same(segmenter(str(PHOTOGRAPH)), expected)


def test_results_outlive_the_next_frame(segmenter: Segmenter, rgb: np.ndarray) -> None:
    """Nothing that is returned may be a view of the runtime's memory."""
    first = segmenter(rgb)
    before = first.to_dict()
    segmenter(np.ascontiguousarray(rgb[:, ::-1]))
    segmenter(rgb[:200, :400])
    assert first.to_dict() == before
    assert_same(segmenter(rgb), first)


def test_threads_change_nothing(segmenter: Segmenter, rgb: np.ndarray) -> None:
    assert_same(Segmenter(threads=2)(rgb), segmenter(rgb))


def test_thresholds(rgb: np.ndarray) -> None:
    many = Segmenter(threads=1, score_threshold=0, max_detections=100)(rgb)
    assert len(many) > 1
    assert (np.diff(many.scores) <= 0).all()
    few = Segmenter(threads=1, score_threshold=0, max_detections=1)(rgb)
    assert len(few) == 1
    assert len(Segmenter(threads=1, score_threshold=1)(rgb)) == 0


def test_fewer_proposals(rgb: np.ndarray) -> None:
    segmenter = Segmenter(threads=1, score_threshold=0, max_detections=100)
    everything = segmenter(rgb)
    post_nms = segmenter.pack.rpn["post_nms"]
    looked_at = segmenter.stages["box_head"].input("rois").shape[0]
    assert 2 < looked_at <= post_nms  # the pack's score_threshold leaves few of a portrait
    segmenter.max_proposals = 10 * post_nms  # never more than the pack's
    assert_same(segmenter(rgb), everything)
    segmenter.max_proposals = 2
    few = segmenter(rgb)
    assert segmenter.stages["box_head"].input("rois").shape[0] == 2
    assert 0 < len(few) <= 2
    # The best ones: the astronaut is still the first.
    np.testing.assert_allclose(few.boxes[0], everything.boxes[0], atol=25)


def test_short_side(segmenter: Segmenter, rgb: np.ndarray) -> None:
    assert segmenter.pack.input["short_side"] == 320
    segmenter(rgb[:384])
    assert segmenter.stages["backbone"].input("image").shape == (1, 320, 416, 3)
    small = Segmenter(threads=1, short_side=224)
    small(rgb[:384])
    assert small.stages["backbone"].input("image").shape == (1, 224, 288, 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2000, 16), (33, 65), (480, 640), (31, 31)])
def test_any_size(segmenter: Segmenter, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    found = segmenter(random.integers(0, 256, (*shape, 3)).astype(np.uint8))
    assert found.size == shape
    assert found.masks.to_dense().shape == (len(found), *shape)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_empty_scene(segmenter: Segmenter, value: int) -> None:
    found = segmenter(np.full((240, 320, 3), value, np.uint8))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.masks.to_dense().shape == (0, 240, 320)


def test_timings(rgb: np.ndarray) -> None:
    segmenter = Segmenter(threads=1)
    assert segmenter.timings == {}
    segmenter(rgb)
    names = {
        "resize", "backbone", "proposals", "roi_align", "box_head", "nms", "mask_head", "paste",
        "total",
    }  # fmt: skip
    assert names <= set(segmenter.timings)
    assert min(segmenter.timings.values()) >= 0
    assert segmenter.timings["total"] >= segmenter.timings["backbone"] > 0


def test_pack_object_and_path(segmenter: Segmenter, rgb: np.ndarray) -> None:
    pack = load_pack("people")
    assert Segmenter(pack).pack is pack
    assert_same(Segmenter(Path(pack.path), threads=1)(rgb), segmenter(rgb))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 1.5}, "score_threshold is 1.5; give a number from 0 to 1"),
        ({"score_threshold": -0.1}, "give a number from 0 to 1"),
        ({"score_threshold": float("nan")}, "give a number from 0 to 1"),
        ({"score_threshold": "0.5"}, "score_threshold is '0.5'; give a number from 0 to 1"),
        ({"max_detections": 0}, "max_detections is 0; give a whole number, 1 or more"),
        ({"max_detections": 2.5}, "max_detections is 2.5; give a whole number"),
        ({"max_proposals": 0}, "max_proposals is 0; give a whole number, 1 or more"),
        ({"max_proposals": 1.5}, "max_proposals is 1.5; give a whole number"),
        ({"short_side": 31}, "short_side is 31; give a whole number from 32 to 4096"),
        ({"short_side": 5000}, "short_side is 5000; give a whole number from 32 to 4096"),
        ({"short_side": "320"}, "short_side is '320'; give a whole number"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_refuses_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Segmenter(**options)
    assert message in str(caught.value)


def test_numpy_numbers_are_numbers(rgb: np.ndarray) -> None:
    segmenter = Segmenter(
        threads=1,
        score_threshold=np.float32(0.5),
        max_detections=np.int64(1),
        short_side=np.int32(320),
    )
    assert len(segmenter(rgb)) == 1


def test_refuses_packs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no-such-pack"):
        Segmenter("no-such-pack")
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(ModelError, match=r"x\.zip"):
        Segmenter(tmp_path / "x.zip")


def test_refuses_images(segmenter: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="float64"):
        segmenter(np.zeros((10, 10, 3)))
    with pytest.raises(InputError, match=r"\(10, 10\)"):
        segmenter(np.zeros((10, 10), np.uint8))
    with pytest.raises(SourceError, match=r"none\.jpg"):
        segmenter(tmp_path / "none.jpg")
