"""Teachers that are networks: edgemask's own, torchvision's, and MaskRCNN2Go's files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.teach.maskrcnn2go import STRIDE, MaskRCNN2Go, maskrcnn2go
from edgemask_convert.teach.protocol import TeacherError
from edgemask_convert.teach.registry import make_teacher

from edgemask.masks import paste

IMAGE = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)


# ---- edgemask's own


def test_a_checkpoint_finds_what_the_pipeline_finds(tiny_model: Any, tmp_path: Path) -> None:
    from edgemask_convert.arch.keras_stages import float_pipeline
    from edgemask_convert.checkpoint import export_model, load_model
    from edgemask_convert.config import Config

    classes = [{"id": 4, "name": "disc"}, {"id": 2, "name": "triangle"}]
    path = tmp_path / "model.npz"
    config = Config(model=tiny_model.config).to_dict()
    export_model(path, tiny_model, {"config": config, "classes": classes})
    teacher = make_teacher(f"checkpoint:{path}")
    assert teacher.categories == {4: "disc", 2: "triangle"}
    found = teacher.label(IMAGE)
    pipeline = float_pipeline(load_model(path)[0], classes)
    expected = pipeline(IMAGE, 0.01, 100)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert found.class_ids.tolist() == expected.class_ids.tolist()
    threshold = pipeline.manifest["mask"]["threshold"]
    pasted = paste(found.masks, found.boxes, *IMAGE.shape[:2], threshold).to_dense()
    assert (pasted != expected.masks.to_dense()).mean() < 1e-3


def test_a_pack_is_prompted(tmp_path: Path, fake_teacher: Any) -> None:
    teacher = make_teacher("pack:people", short_sides=(64, 96), flip=True)
    assert teacher.categories == {1: "person"}
    boxes = np.array([[5, 5, 40, 50], [30, 2, 80, 58]], np.float32)
    masks = teacher.segment(IMAGE, boxes, np.array([1, 1], np.int32))
    assert masks.shape[0] == 2
    assert masks.dtype == np.float32
    assert masks.min() >= 0
    assert masks.max() <= 1
    # The mirrored image has the mirrored masks, whatever the network thinks of it.
    mirrored = np.stack([90 - boxes[:, 2], boxes[:, 1], 90 - boxes[:, 0], boxes[:, 3]], 1)
    flipped = np.ascontiguousarray(IMAGE[:, ::-1])
    other = teacher.segment(flipped, mirrored, np.array([1, 1], np.int32))
    np.testing.assert_allclose(other[:, :, ::-1], masks, atol=0.02)


def test_of_several_sizes_the_one_that_suits_an_object_decides() -> None:
    """A box of 20 pixels is 21 high in one view and 85 in the other, which alone is looked at."""
    boxes, ids = np.array([[30, 20, 50, 40]], np.float32), np.array([1], np.int32)
    both = make_teacher("pack:people", short_sides=(64, 256)).segment(IMAGE, boxes, ids)
    large = make_teacher("pack:people", short_sides=(256,)).segment(IMAGE, boxes, ids)
    small = make_teacher("pack:people", short_sides=(64,)).segment(IMAGE, boxes, ids)
    np.testing.assert_allclose(both, large, atol=1e-6)
    assert np.abs(small - large).max() > 0.05


# ---- torchvision


def test_torchvision_with_random_weights() -> None:
    pytest.importorskip("torchvision", reason="pip install -e '.[torchvision]'")
    teacher = make_teacher("torchvision:random", short_sides=(64,), flip=False)
    found = teacher.label(IMAGE)
    assert found.masks.shape[1:] == (28, 28)
    masks = teacher.segment(IMAGE, np.array([[5, 5, 40, 50]], np.float32), np.array([1]))
    assert masks.shape == (1, 28, 28)


def test_torchvision_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(TeacherError, match=r"pip install 'edgemask\[torchvision\]'"):
        make_teacher("torchvision:random")


# ---- MaskRCNN2Go


class StubNetwork:
    """A feature map that holds the coordinates of its cells, in place of the network."""

    anchors = np.array([[-8, -8, 24, 24]], np.float32)

    def __init__(self) -> None:
        self.pooled: list[np.ndarray] = []

    def trunk(self, bgr: np.ndarray) -> list[Any]:
        import tensorflow as tf

        self.input = bgr
        rows, columns = (-(-side // STRIDE) for side in bgr.shape[1:3])
        y, x = np.mgrid[:rows, :columns].astype(np.float32)
        scores = np.zeros((1, rows, columns, 1), np.float32)
        scores[0, 1, 2] = 0.9
        deltas = np.zeros((1, rows, columns, 4), np.float32)
        deltas[..., 0] = 0.25
        return [tf.constant(a) for a in (np.stack([x, y], -1)[None], scores, deltas)]

    def mask_head(self, pooled: np.ndarray) -> list[Any]:
        import tensorflow as tf

        self.pooled.append(pooled)
        masks = np.zeros((len(pooled), 24, 24, 81), np.float32)
        masks[:] = np.arange(81) / 100
        return [tf.constant(masks)]


def opened(image: np.ndarray, short_side: int) -> tuple[StubNetwork, Any]:
    network = StubNetwork()
    return network, MaskRCNN2Go.open(network, image, short_side)  # type: ignore[arg-type]


def test_input_is_bgr_of_the_wanted_size() -> None:
    image = np.zeros((100, 150, 3), np.uint8)
    image[..., 0] = 200
    network, _ = opened(image, 320)
    assert network.input.shape == (1, 320, 480, 3)
    assert network.input[0, 0, 0].tolist() == [0, 0, 200]
    assert opened(np.zeros((100, 500, 3), np.uint8), 320)[0].input.shape == (1, 128, 640, 3)


def test_proposals_are_half_open_and_clipped() -> None:
    _, view = opened(np.zeros((96, 96, 3), np.uint8), 96)
    boxes = view._proposals()
    # Anchor 32 wide at cell (1, 2): corner pixels 24 … 55, moved right by a quarter of 32.
    assert boxes[0].tolist() == [32, 8, 64, 40]
    assert boxes.min() >= 0
    assert boxes.max() <= 96


def test_roi_align_reads_cells_at_corner_pixels() -> None:
    network, view = opened(np.zeros((160, 160, 3), np.uint8), 160)
    # Corner pixels 16 … 112: cells 1 … 7, six bins of one cell, sampled at 1.25 and 1.75.
    masks = view.masks(np.array([[16, 16, 113, 113]], np.float32), np.array([1], np.int32))
    np.testing.assert_allclose(network.pooled[0][0, 0, :, 0], [1.5, 2.5, 3.5, 4.5, 5.5, 6.5])
    np.testing.assert_allclose(network.pooled[0][0, :, 0, 1], [1.5, 2.5, 3.5, 4.5, 5.5, 6.5])
    assert masks.shape == (1, 24, 24)


def test_each_box_gets_the_mask_of_its_category() -> None:
    network, view = opened(np.zeros((160, 160, 3), np.uint8), 160)
    ids = np.array([1, 13, 90] * 12, np.int32)  # more than one chunk
    masks = view.masks(np.tile(np.float32([10, 10, 90, 90]), (36, 1)), ids)
    assert len(network.pooled) == 2
    # Columns in the order of COCO's ids, after the background: 1, 12 and 80.
    np.testing.assert_allclose(masks[:3, 0, 0], [0.01, 0.12, 0.80])


def shared(*parts: str) -> Path:
    path = Path(os.environ.get("EDGEMASK_SHARED", "../shared")).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not there: set EDGEMASK_SHARED")
    return path


@pytest.mark.dataset
def test_maskrcnn2go_on_real_people() -> None:
    """The published network through our code: person masks on the first 40 images."""
    from edgemask_convert.evaluation.measure import load_truth
    from edgemask_convert.teach.measure import measure_teacher

    teacher = maskrcnn2go(shared("weights", "maskrcnn2go"), short_sides=(320,), flip=False)
    folder = shared("data", "coco-people")
    truth = load_truth(folder / "dev.json", 40)
    report = measure_teacher(teacher, truth, folder / "images", [1])
    assert report["detection"]["segm"]["AP"] > 0.25
    assert report["mask_iou"]["all"] > 0.68
