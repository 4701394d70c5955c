"""What the toolchain's tests share; all of them are skipped where TensorFlow is missing."""

from __future__ import annotations

import copy
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from PIL import Image

# A network that is built and traced in seconds. It has every part that a real one has.
TINY: dict[str, Any] = {
    "model": {
        "name": "tiny",
        "classes": [1, 2],
        "short_side": 64,
        "backbone": {"alpha": 0.35, "last_block": 13, "frozen_blocks": 1},
        "neck": {"channels": 16},
        "rpn": {"convs": 1, "pre_nms": 60, "post_nms": 12},
        "box_head": {"width": 16},
        "mask_head": {"blocks": 1, "up_channels": 8},
    },
    "augment": {"crop": 64, "min_short_side": 50, "max_short_side": 80},
    "train": {
        "batch_size": 2,
        "epochs": 4.0,
        "warmup_steps": 2,
        "proposals": 20,
        "rois_per_image": 16,
        "positive_rois": 6,
        "mask_rois": 4,
    },
}


# The same with keypoints of class 1.
TINY_POSE: dict[str, Any] = copy.deepcopy(TINY)
TINY_POSE["model"] |= {"keypoint_head": {"blocks": 1, "width": 16, "up_channels": 8}}
TINY_POSE["train"] |= {"keypoint_rois": 4}


# A network without a pyramid, of the kind of MaskRCNN2Go.
HEAD_2GO = {"output_size": 6, "features": ["c4"], "level_thresholds": [], "class_agnostic": False}
TINY_2GO: dict[str, Any] = {
    "model": {
        "name": "tiny-2go",
        "classes": [1, 2],
        "short_side": 64,
        "backbone": {"kind": "maskrcnn2go", "expansions": [16] * 13, "frozen_blocks": 1},
        "rpn": {
            "anchor_boxes": [[-9.0, -8.0, 8.0, 8.0], [-16.0, -30.0, 24.0, 30.0], [-20, -9, 20, 9]],
            "expansions": [16] * 3,
            "pre_nms": 60,
            "post_nms": 12,
        },
        "box_head": HEAD_2GO | {"activation": "softmax", "expansions": [16] * 4},
        "mask_head": HEAD_2GO | {"expansions": [16] * 4},
    },
    "augment": TINY["augment"],
    "train": TINY["train"],
}


def changed(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a configuration with other values in its model, ``section__key=value``."""
    values = copy.deepcopy(values)
    for path, value in changes.items():
        node = values["model"]
        *sections, last = path.split("__")
        for section in sections:
            node = node[section]
        node[last] = value
    return values


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> None:
    """Skip every module here, with the reason, if there is no TensorFlow."""
    pytest.importorskip(
        "tensorflow",
        reason="the toolchain needs TensorFlow: pip install -e '.[convert,test]'",
        exc_type=ImportError,
    )


@pytest.fixture(scope="session")
def tiny_config() -> Any:
    """The configuration TINY."""
    from edgemask_convert.config import from_dict

    return from_dict(TINY)


@pytest.fixture(scope="session")
def tiny_model(tiny_config: Any) -> Any:
    """A random network whose outputs vary enough to be compared; do not change its weights."""
    import keras
    from edgemask_convert.arch import build_model

    keras.utils.set_random_seed(3)
    model = build_model(tiny_config.model)
    random = np.random.default_rng(3)
    for name, weight in model.named_weights().items():
        if name.endswith("/bias") and "logits" not in name:
            weight.assign(random.normal(0, 0.1, weight.shape))
        elif "logits" in name or "deltas" in name:
            weight.assign(random.normal(0, 0.3, weight.shape))
    return model


@pytest.fixture(scope="session")
def tiny_pose(tiny_model: Any) -> Any:
    """The same network with a random keypoint head; do not change its weights."""
    import keras
    from edgemask_convert.arch import build_model
    from edgemask_convert.checkpoint import assign_weights
    from edgemask_convert.config import from_dict

    keras.utils.set_random_seed(4)
    model = build_model(from_dict(TINY_POSE).model)
    shared = {name: np.asarray(weight) for name, weight in tiny_model.named_weights().items()}
    assign_weights(model, shared, "tiny_model", ("keypoint_head",))
    kernel = model.keypoint_head.get_layer("keypoint_logits").kernel
    kernel.assign(np.random.default_rng(4).normal(0, 1.5, kernel.shape))
    return model


@pytest.fixture(scope="session")
def tiny_2go() -> Any:
    """A random network without a pyramid; do not change its weights."""
    return make_2go()


def make_2go(seed: int = 7, **changes: Any) -> Any:
    """Build a random network without a pyramid whose outputs vary enough to be compared."""
    import keras
    from edgemask_convert.arch import build_model
    from edgemask_convert.config import from_dict

    keras.utils.set_random_seed(seed)
    model = build_model(from_dict(changed(TINY_2GO, **changes)).model)
    random = np.random.default_rng(seed)
    for name, weight in model.named_weights().items():
        if name.endswith("/bias") and "logits" not in name:
            weight.assign(random.normal(0, 0.1, weight.shape))
        elif "logits" in name or "deltas" in name:
            weight.assign(random.normal(0, 0.3, weight.shape))
    return model


CLASSES = [{"id": 1, "name": "disc"}, {"id": 2, "name": "triangle"}]


@pytest.fixture(scope="session")
def drawn_images() -> list[np.ndarray]:
    """Six drawn photographs for calibration, of both orientations."""
    from shapes import draw_image

    random = np.random.default_rng(0)
    sizes = [(96, 128), (128, 96), (100, 100)] * 2
    return [draw_image(random, *size)[0] for size in sizes]


@pytest.fixture(scope="session")
def tiny_pack(
    tiny_model: Any, drawn_images: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The tiny network as an int8 pack, written and loaded."""
    return make_pack(tiny_model, drawn_images, tmp_path_factory.mktemp("pack") / "tiny.zip")


@pytest.fixture(scope="session")
def tiny_pose_pack(
    tiny_pose: Any, drawn_images: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The same with a keypoint head."""
    return make_pack(tiny_pose, drawn_images, tmp_path_factory.mktemp("pack") / "pose.zip")


def make_pack(model: Any, images: list[np.ndarray], path: Path) -> Any:
    """Quantize a network, write it and load it."""
    from edgemask_convert.export.packfile import write_pack
    from edgemask_convert.export.quantize import quantize_model

    from edgemask.modelpack import load_pack

    manifest, stages = quantize_model(model, CLASSES, images)
    manifest |= {"version": "0", "description": "", "license": "", "credits": []}
    write_pack(path, manifest | {"training": {}, "metrics": {}}, stages)
    return load_pack(path)


class Coco:
    """Builds a COCO dataset in a folder, by default of grey 40x30 images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "images"
        self.folder.mkdir()
        self.path = folder / "annotations.json"
        self.data: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": copy.deepcopy(CLASSES),
        }

    def image(self, number: int, width: int = 40, height: int = 30, **extra: Any) -> Path:
        """Add an image and write its file, unless `extra` names another `file_name`."""
        entry = {"id": number, "file_name": f"{number}.png", "width": width, "height": height}
        self.data["images"].append(entry | extra)
        path = self.folder / f"{number}.png"
        Image.new("RGB", (width, height), (128, 100 + number % 100, 90)).save(path)
        return path

    def add(self, image: int, box: Any, segmentation: Any = None, **extra: Any) -> int:
        """Add an annotation, by default a mask that fills the box; return its id."""
        number = 100 + len(self.data["annotations"])
        if segmentation is None:
            x, y, w, h = box
            segmentation = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        entry = {"id": number, "image_id": image, "category_id": 1, "bbox": box, "iscrowd": 0}
        self.data["annotations"].append({**entry, "segmentation": segmentation, **extra})
        return number

    def load(self, classes: list[int] | None = None) -> Any:
        """Write the JSON file and open the dataset."""
        from edgemask_convert.data.dataset import CocoDataset

        self.path.write_text(json.dumps(self.data))
        return CocoDataset(self.path, self.folder, classes)


@pytest.fixture
def coco(tmp_path: Path) -> Coco:
    """An empty dataset to fill."""
    return Coco(tmp_path)


def make_batch() -> dict[str, np.ndarray]:
    """Two images of 64 pixels: one with two objects of different classes, one with none."""
    from edgemask_convert.data.augment import MAX_IGNORE, MAX_OBJECTS
    from edgemask_convert.data.bitmaps import MASK_SIZE

    random = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {
        "image": random.integers(0, 256, (2, 64, 64, 3)).astype(np.uint8),
        "boxes": np.zeros((2, MAX_OBJECTS, 4), np.float32),
        "labels": np.zeros((2, MAX_OBJECTS), np.int32),
        "valid": np.zeros((2, MAX_OBJECTS), np.float32),
        "has_mask": np.zeros((2, MAX_OBJECTS), np.float32),
        "keypoints": np.zeros((2, MAX_OBJECTS, 17, 3), np.float32),
        "bitmaps": np.zeros((2, MAX_OBJECTS, MASK_SIZE, MASK_SIZE), np.uint8),
        "ignore": np.zeros((2, MAX_IGNORE, 4), np.float32),
        "labeled": np.ones((2, 2), np.float32),
        "exhaustive": np.ones(2, np.float32),
        "image_id": np.array([11, 12], np.int64),
    }
    made["boxes"][0, :2] = [[4, 6, 40, 50], [30, 20, 60, 44]]
    made["full_boxes"] = made["boxes"].copy()
    made["labels"][0, 1] = 1
    made["valid"][0, :2] = made["has_mask"][0, :2] = 1
    made["bitmaps"][0, :2, 8:56, 8:56] = 255
    made["keypoints"][0, 0, :5] = [[10, 12, 2], [14, 20, 2], [30, 20, 1], [20, 44, 2], [34, 42, 2]]
    return made


@pytest.fixture
def batch() -> dict[str, np.ndarray]:
    """A batch to change as one likes."""
    return make_batch()


@pytest.fixture
def eager() -> Iterator[None]:
    """Run tf.functions eagerly: tracing a training step takes longer than a few steps."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
