"""Stages that return what they are told, for tests of the pipeline around them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from synthetic import small_manifest

from edgemask.pipeline import Pipeline

# One level of stride 16 with square anchors of 32 pixels; the image is twice the input's size.
MANIFEST: dict[str, Any] = small_manifest()
MANIFEST["input"]["short_side"] = 64
MANIFEST["classes"] = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
MANIFEST["rpn"] |= {"strides": [16], "anchor_sizes": [32], "pre_nms": 50, "post_nms": 5}
MANIFEST["roi"]["strides"] = [16]
IMAGE = np.zeros((128, 192, 3), np.uint8)  # becomes 64x96: 4x6 cells

SURE, NEVER = 12.0, -30.0


class Fake:
    """A stage that returns what it is told, refuses empty batches, and without outputs all."""

    def __init__(
        self, outputs: dict[str, np.ndarray], params: dict[str, tuple[float, int]] | None = None
    ) -> None:
        self.outputs, self.params = outputs, params or {}
        self.inputs: list[np.ndarray] = []

    def run(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Remember the input."""
        assert self.outputs, "this stage must not run"
        (given,) = arrays.values()
        assert min(given.shape) > 0, "an empty batch reached a stage"
        self.inputs.append(np.array(given))
        count = len(given)
        whole = "p2" in self.outputs
        return {k: v if whole else v[:count] for k, v in self.outputs.items()}

    def quantization(self, name: str) -> tuple[float, int]:
        """float32 unless told otherwise."""
        return self.params.get(name, (1.0, 0))


NEVER_RUN = Fake({})


def backbone(cells: list[tuple[int, int, float]], rows: int = 4, columns: int = 6) -> Fake:
    """Propose the anchors of the cells (row, column, logit)."""
    logits = np.full((1, rows, columns, 1), NEVER, np.float32)
    deltas = np.zeros((1, rows, columns, 4), np.float32)
    deltas[..., 2:] = -50  # all other boxes are smaller than a pixel
    for row, column, value in cells:
        logits[0, row, column, 0] = value
        deltas[0, row, column] = 0
    features = np.random.default_rng(0).uniform(0, 6, (1, rows, columns, 8)).astype(np.float32)
    return Fake({"p2": features, "rpn_logits_2": logits, "rpn_deltas_2": deltas})


def box_head(*logits: tuple[float, float]) -> Fake:
    """Score the proposals and leave the boxes alone."""
    values = np.array(logits, np.float32)
    return Fake({"logits": values, "deltas": np.zeros((len(values), 4), np.float32)})


def mask_head(*levels: float, channels: int = 1) -> Fake:
    """Give constant masks; with several channels each is 1 lower than the one before."""
    values = np.array(levels, np.float32)[:, None, None, None] - np.arange(channels)
    return Fake({"logits": np.broadcast_to(values, (len(levels), 28, 28, channels)).copy()})


def pipeline(first: Fake, second: Fake, third: Fake, **mask: Any) -> Pipeline:
    """Put three stages together."""
    manifest = copy.deepcopy(MANIFEST)
    manifest["mask"] |= mask
    return Pipeline(manifest, {"backbone": first, "box_head": second, "mask_head": third})
