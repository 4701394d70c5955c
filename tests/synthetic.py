"""What the tests are made of: drawn scenes with known truth, a small pack, a fake segmenter.

None of them needs a network connection, TensorFlow or a trained model.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.instances import Instances
from edgemask.keypoints import NAMES, SKELETON
from edgemask.masks import CropMasks

DATA = Path(__file__).resolve().parent / "data"

# Every instance of a drawn scene has one of these; the background stays below 100.
COLOURS = [(255, 150 + 10 * n, 150) for n in range(10)]


@dataclass
class Scene:
    """A drawn image and what is in it.

    `rgb` is uint8 (H, W, 3), `masks` bool (N, H, W), visible parts only.
    """

    rgb: NDArray[np.uint8]
    masks: NDArray[np.bool_]

    def save(self, path: Path) -> Path:
        """Save the image losslessly and return the path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.rgb).save(path)
        return path


def draw_scene(seed: int = 0, height: int = 48, width: int = 64, count: int = 2) -> Scene:
    """Draw `count` ellipses, each in a colour of its own, over noise."""
    random = np.random.default_rng(seed)
    rgb = random.integers(0, 100, (height, width, 3), dtype=np.uint8)
    y, x = np.ogrid[0.5:height, 0.5:width]
    owner = np.full((height, width), -1)
    for n in range(count):
        centre_y, centre_x = random.uniform(0.25, 0.75, 2) * (height, width)
        radius_y, radius_x = random.uniform(0.12, 0.3, 2) * (height, width)
        inside = ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2 <= 1
        rgb[inside], owner[inside] = COLOURS[n], n
    masks = np.array([owner == n for n in range(count)]).reshape(count, height, width)
    return Scene(rgb, masks[masks.any(axis=(1, 2))] if count else masks)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds one compressed zero."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def make_instances(masks: NDArray[np.bool_], scores: Any = None, class_id: int = 1) -> Instances:
    """Return Instances with tight boxes for dense masks (N, H, W), none of them empty."""
    count, height, width = masks.shape
    crops, boxes = [], np.zeros((count, 4), np.float32)
    for n, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        crops.append(mask[top:bottom, left:right])
        boxes[n] = left, top, right, bottom
    origins = boxes[:, :2].astype(np.int32)
    scores = np.linspace(0.95, 0.6, count) if scores is None else scores
    names = ["person"] * count
    return Instances(
        boxes, scores, [class_id] * count, CropMasks(crops, origins, height, width), names
    )


class FakeSegmenter:
    """Finds the ellipses of :func:`draw_scene` by their colours; no network at all."""

    def __init__(self, pack: Any, score_threshold: float = 0.5, max_detections: int = 20) -> None:
        self.pack = pack
        self.score_threshold, self.max_detections = score_threshold, max_detections
        self.timings = {"backbone": 1.0, "total": 2.0}

    def __call__(self, rgb: NDArray[np.uint8]) -> Instances:
        """Return one instance per colour that occurs, the more sure the larger it is."""
        assert rgb.dtype == np.uint8
        assert rgb.ndim == 3
        found = [np.all(rgb == colour, axis=2) for colour in COLOURS]
        found = [mask for mask in found if mask.any()]
        if not found:
            return Instances.empty(*rgb.shape[:2])
        areas = np.array([mask.sum() for mask in found])
        scores = 0.5 + 0.49 * areas / areas.max()
        instances = make_instances(np.array(found), scores)
        instances = instances[np.argsort(-instances.scores)]
        return instances[instances.scores >= self.score_threshold][: self.max_detections]


def tensor(name: str, shape: list[int | None], scale: float, zero_point: int) -> dict[str, Any]:
    """Return a manifest entry of an int8 tensor."""
    return {
        "tensor": name,
        "shape": shape,
        "dtype": "int8",
        "scale": scale,
        "zero_point": zero_point,
    }


def stage_spec(name: str) -> dict[str, Any]:
    """Return the manifest entry of one of the small flatbuffers in tests/data."""
    content = (DATA / f"{name}.tflite").read_bytes()
    spec: dict[str, Any] = {
        "file": f"{name}.tflite",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    if name == "backbone":
        logits = tensor("Identity", [1, None, None, 4], 0.044183287769556046, 17)
        features = tensor("Identity_1", [1, None, None, 8], 0.011909332126379013, -128)
        spec["inputs"] = {"image": tensor("image", [1, None, None, 3], 0.0078125, 0)}
        spec["outputs"] = {"p2": features, "rpn_logits_2": logits, "rpn_deltas_2": logits}
    else:
        scale, zero_point = {
            "head": (0.057659972459077835, 13),
            "outside": (0.05155187100172043, 3),
        }[name]
        logits = tensor("Identity", [None, 7, 7, 4], scale, zero_point)
        spec["inputs"] = {"rois": tensor("rois", [None, 7, 7, 8], 0.0235294122248888, -128)}
        spec["outputs"] = {"logits": logits} | ({"deltas": logits} if name == "head" else {})
    return spec


def small_manifest() -> dict[str, Any]:
    """Return a valid manifest over the small flatbuffers."""
    pooler = {"output_size": 7, "sampling_ratio": 2, "features": ["p2"], "level_thresholds": []}
    return {
        "schema": 1,
        "name": "small",
        "version": "1",
        "description": "A network that finds nothing, for tests.",
        "license": "Apache-2.0",
        "credits": ["made by tests/data/make_probe.py"],
        "input": {
            "layout": "NHWC",
            "color": "RGB",
            "mean": 128.0,
            "std": 128.0,
            "short_side": 64,
            "max_aspect": 2.0,
            "stride": 32,
        },
        "classes": [{"id": 1, "name": "person"}],
        "rpn": {
            "levels": ["2"],
            "strides": [2],
            "anchor_sizes": [16],
            "anchor_ratios": [1.0],
            "box_weights": [1, 1, 1, 1],
            "pre_nms": 20,
            "post_nms": 5,
            "nms_threshold": 0.7,
        },
        "roi": {"features": ["p2"], "strides": [2], "box": pooler, "mask": dict(pooler)},
        "detections": {"box_weights": [10, 10, 5, 5], "nms_threshold": 0.5},
        "mask": {"size": 28, "class_agnostic": True, "threshold": 0.5, "rescore": True},
        "stages": {
            "backbone": stage_spec("backbone"),
            "box_head": stage_spec("head"),
            "mask_head": stage_spec("outside"),
        },
        "training": {"epochs": 0},
        "metrics": {"int8": {"mask_ap": 0.125}, "dataset": "none"},
    }


def keypoint_section(class_id: int = 1) -> dict[str, Any]:
    """Return the section ``keypoint`` of a manifest."""
    return {
        "class_id": class_id,
        "size": 28,
        "box_scale": 1.0,
        "names": list(NAMES),
        "skeleton": [list(pair) for pair in SKELETON],
    }


def write_pack(
    path: Path,
    manifest: dict[str, Any] | bytes | None = None,
    members: dict[str, bytes] | None = None,
) -> Path:
    """Write a pack: the small one, or with another manifest, or with more or other members."""
    content = {f"{n}.tflite": (DATA / f"{n}.tflite").read_bytes() for n in SMALL_FILES}
    manifest = small_manifest() if manifest is None else manifest
    raw = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    content = {"model.json": raw, **content, **(members or {})}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


SMALL_FILES = ("backbone", "head", "outside")
