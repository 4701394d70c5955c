"""An edgemask model as a teacher: a pack or a checkpoint, wider or at a higher resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.geometry import InputSize, fit_input, resize
from edgemask.pipeline import Pipeline
from edgemask.postprocess import detections, mask_probabilities, proposals, rescore

from .protocol import Floats
from .views import Found, ViewTeacher

__all__ = ["edgemask_model"]

SCORE, MAX_DETECTIONS = 0.01, 100
# Of several sizes a person is believed where it has about this many pixels of the network's input:
# mask AP .397 where views that count alike have .372 (docs/teach.md).
BEST_SIZE, SIZE_SPREAD = 130.0, 0.4


class _Steps:
    """A pipeline's stages one by one, so that other boxes can be put in between."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.manifest, self.stages = pipeline.manifest, pipeline.stages
        self._ids = np.array([entry["id"] for entry in self.manifest["classes"]], np.int32)

    def open(self, image: NDArray[np.uint8], short_side: int) -> _View:
        """Compute the features of an RGB image (H, W, 3)."""
        spec = self.manifest["input"]
        size = fit_input(*image.shape[:2], short_side, spec["stride"], spec["max_aspect"])
        outputs = self.stages["backbone"].run(image=self.pipeline.encode_image(resize(image, size)))
        # The stage's arrays are valid until its next run, and there may be more views.
        return _View(self, size, {name: np.array(value) for name, value in outputs.items()})

    def find(self, features: dict[str, NDArray[Any]], size: InputSize) -> Found:
        """Detect on known features."""
        backbone, head = self.stages["backbone"], self.stages["box_head"]
        rois = proposals(features, backbone.quantization, self.manifest["rpn"], *size.network)
        if not len(rois):
            return Found(rois, np.zeros(0, np.float32), np.zeros(0, np.int32))
        raw = head.run(rois=self.pipeline.pool(features, rois, "box"))
        found = detections(
            raw["logits"], raw["deltas"], head.quantization, rois, self.manifest["detections"],
            *size.network, SCORE, MAX_DETECTIONS,
        )  # fmt: skip
        scores, boxes = found.scores, size.to_image(found.boxes)
        spec = self.manifest["mask"]
        if spec["rescore"] and len(boxes):
            masks = self.segment(features, size, boxes, found.classes)
            scores = rescore(scores, masks, spec["threshold"])
        order = np.argsort(-scores, kind="stable")
        return Found(boxes[order], scores[order], self._ids[found.classes[order]])

    def segment(
        self,
        features: dict[str, NDArray[Any]],
        size: InputSize,
        boxes: Floats,
        classes: NDArray[np.int64],
    ) -> Floats:
        """Run the mask head on boxes (N, 4) in pixels of the image, N ≥ 1."""
        head = self.stages["mask_head"]
        raw = head.run(rois=self.pipeline.pool(features, size.to_network(boxes), "mask"))["logits"]
        agnostic = self.manifest["mask"]["class_agnostic"]
        return np.array(mask_probabilities(raw, head.quantization, classes, agnostic))

    def columns(self, class_ids: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the network's column of each category id."""
        order = np.argsort(self._ids)
        return order[np.searchsorted(self._ids[order], class_ids)]


class _View:
    def __init__(self, steps: _Steps, size: InputSize, features: dict[str, NDArray[Any]]) -> None:
        self._steps, self._size, self._features = steps, size, features

    def detect(self) -> Found:
        return self._steps.find(self._features, self._size)

    def masks(self, boxes: Floats, class_ids: NDArray[np.int32]) -> Floats:
        columns = self._steps.columns(class_ids)
        return self._steps.segment(self._features, self._size, boxes, columns)


def edgemask_model(
    source: str | Path, short_sides: tuple[int, ...] | None = None, flip: bool = False
) -> ViewTeacher:
    """Make the teacher from a checkpoint (.npz), a pack (.zip) or the name of a bundled pack.

    Parameters
    ----------
    source : str or path
    short_sides : tuple of int, optional
        None takes the model's own. Of several, each object is weighted by its size in them, see
        :func:`.views.size_weights`.
    flip : bool

    Raises
    ------
    CheckpointError, ModelError
        The file is missing, damaged or not a model.
    """
    if str(source).endswith(".npz"):
        from ..arch.keras_stages import float_pipeline
        from ..checkpoint import load_model

        model, header = load_model(source)
        steps = _Steps(float_pipeline(model, header["classes"]))
    else:
        from edgemask.modelpack import load_pack
        from edgemask.runtime import Stage

        pack = load_pack(source)
        stages = {n: Stage(data, pack.stage_spec(n), name=n) for n, data in pack.stages.items()}
        steps = _Steps(Pipeline(pack.manifest, stages))
    manifest = steps.manifest
    categories = {entry["id"]: entry["name"] for entry in manifest["classes"]}
    sides = short_sides or (manifest["input"]["short_side"],)
    best = BEST_SIZE if len(sides) > 1 else None
    return ViewTeacher(
        str(manifest["name"]), categories, steps.open, sides, flip, best, SIZE_SPREAD
    )
