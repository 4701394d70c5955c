"""Drawn shapes, and predictions that are right, moved, doubled, of another class, invented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapes import annotation, draw_dataset

from edgemask import rle
from edgemask.evaluate import load_annotations


def moved(mask: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """A mask shifted by whole pixels; what leaves the image comes in on the other side."""
    return np.roll(mask, (dy, dx), axis=(0, 1))


def result(image_id: int, kind: int, mask: np.ndarray, score: float) -> dict[str, Any]:
    """A COCO result of a mask."""
    made = annotation(0, image_id, kind, mask)
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return {key: made[key] for key in keys} | {"score": score}


def predictions(truth: dict[str, Any], seed: int = 0) -> list[dict[str, Any]]:
    """What a mediocre network would find."""
    random = np.random.default_rng(seed)
    found = []
    for entry in truth["annotations"]:
        height, width = entry["segmentation"]["size"]
        mask = rle.decode(entry["segmentation"]["counts"], height, width)
        kind = entry["category_id"]
        if random.random() < 0.15:
            continue
        shift = random.integers(-9, 10, 2)
        score = float(np.clip(1 - np.abs(shift).sum() / 20 + random.normal(0, 0.15), 0.02, 0.99))
        kind = 3 - kind if random.random() < 0.1 else kind
        found.append(result(entry["image_id"], kind, moved(mask, *shift), round(score, 5)))
        if random.random() < 0.2:
            twin = moved(mask, *random.integers(-3, 4, 2))
            found.append(result(entry["image_id"], kind, twin, round(score * 0.7, 5)))
    for _ in range(25):
        image = truth["images"][int(random.integers(len(truth["images"])))]
        mask = np.zeros((image["height"], image["width"]), bool)
        y, x = random.integers(0, 80, 2)
        mask[y : y + 30, x : x + 30] = True
        found.append(result(image["id"], int(random.integers(1, 3)), mask, random.random() * 0.6))
    return found


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``annotations.json`` and ``images``, some of which show nothing."""
    folder = tmp_path_factory.mktemp("drawn")
    path = draw_dataset(folder, 24)
    data = json.loads(path.read_text())
    empty = {info["id"] for info in data["images"][-5:]}
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] not in empty]
    path.write_text(json.dumps(data))
    return folder


@pytest.fixture
def truth(drawn: Path) -> dict[str, Any]:
    """The annotations of the drawings; may be changed."""
    return load_annotations(drawn / "annotations.json")
