"""One frame through the three stages, whatever runs them.

:class:`Pipeline` only needs stages that have ``run`` and ``quantization``. On the device those
are TFLite interpreters; the toolchain passes Keras models instead and thereby measures a float
network with exactly the code that will run on the Pi.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemask.geometry import InputSize, fit_input
from edgemask.instances import Instances
from edgemask.keypoints import decode_heatmaps, enlarge, sigmas_of
from edgemask.mask_nms import mask_soft_nms
from edgemask.masks import paste
from edgemask.postprocess import (
    Detections,
    detections,
    mask_probabilities,
    proposals,
    rescore,
)
from edgemask.roi_align import assign_levels, roi_align
from edgemask.shrink import Shrinker

__all__ = ["Pipeline", "StageLike"]

Floats = NDArray[np.float32]


class StageLike(Protocol):
    """What the pipeline needs of a stage."""

    def run(self, **arrays: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Inputs by name → outputs by name, valid until the next call."""

    def quantization(self, name: str) -> tuple[float, int]:
        """(scale, zero point) of a tensor; (1.0, 0) for float32."""


class _Clock:
    """Milliseconds per named step, by a function that returns seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.times: dict[str, float] = {}
        self._now = now
        self._start = self._last = now()

    def lap(self, name: str) -> None:
        now = self._now()
        self.times[name] = (now - self._last) * 1e3
        self._last = now

    def stop(self) -> dict[str, float]:
        self.times["total"] = (self._now() - self._start) * 1e3
        return self.times


class Pipeline:
    """Runs image → instances on three stages, or four where there are keypoints.

    Parameters
    ----------
    manifest : mapping
        A pack's ``model.json``.
    stages : mapping of str to StageLike
        ``backbone``, ``box_head``, ``mask_head`` and, if the manifest has ``keypoint``,
        ``keypoint_head``.
    clock : callable, optional
        Returns seconds; called once at the start of a frame, after each step and at the end.
        `timings` holds the differences in milliseconds. Wall-clock time by default.
    threads : int
        Threads that resize the image.
    """

    def __init__(
        self,
        manifest: Mapping[str, Any],
        stages: Mapping[str, StageLike],
        clock: Callable[[], float] = time.perf_counter,
        threads: int = 1,
    ) -> None:
        self.manifest = manifest
        self.stages = stages
        self.timings: dict[str, float] = {}
        self._now = clock
        self._shrink = Shrinker(threads, manifest["input"].get("resize", "averaged") == "averaged")
        self._ids = np.array([c["id"] for c in manifest["classes"]], np.int32)
        self._names = [c["name"] for c in manifest["classes"]]

    def __call__(
        self,
        rgb: NDArray[np.uint8],
        score_threshold: float = 0.5,
        max_detections: int = 20,
        short_side: int | None = None,
        max_proposals: int | None = None,
    ) -> Instances:
        """Segment one image, uint8 RGB (H, W, 3).

        The box head looks at the best `max_proposals` regions, 1 or more; None is as many as the
        pack says, and more than that never are.
        """
        clock = _Clock(self._now)
        spec = self.manifest["input"]
        size = fit_input(
            rgb.shape[0], rgb.shape[1], short_side or spec["short_side"], spec["stride"],
            spec["max_aspect"],
        )  # fmt: skip
        image = self._input(rgb, size)
        clock.lap("resize")
        features = self.stages["backbone"].run(image=image)
        clock.lap("backbone")
        rois = proposals(
            features, self.stages["backbone"].quantization, self.manifest["rpn"], *size.network
        )[:max_proposals]  # they come best first
        clock.lap("proposals")
        found = self._box_stage(features, rois, size, score_threshold, max_detections, clock)
        instances = self._mask_stage(features, found, size, score_threshold, clock)
        self.timings = clock.stop()
        return instances

    def _input(self, rgb: NDArray[np.uint8], size: InputSize) -> NDArray[Any]:
        if self._takes_levels():
            codes = self._shrink.codes(rgb, size)
            if codes is not None:
                return codes[None]
        return self.encode_image(self._shrink(rgb, size))

    def _takes_levels(self) -> bool:
        """Whether the backbone's int8 input is the image's levels minus 128."""
        spec = self.manifest["input"]
        scale, zero_point = self.stages["backbone"].quantization("image")
        return bool(scale == 1 / 128 and zero_point == 0 and spec["mean"] == spec["std"] == 128)

    def encode_image(self, rgb: NDArray[np.uint8]) -> NDArray[Any]:
        """Input of the backbone, (1, h, w, 3), from an image of the network's size (h, w, 3)."""
        if self._takes_levels():
            # (x - 128) / 128 in steps of 1/128 is x - 128: flipping the top bit does just that.
            return np.bitwise_xor(rgb, np.uint8(0x80)).view(np.int8)[None]
        spec = self.manifest["input"]
        scale, zero_point = self.stages["backbone"].quantization("image")
        values: Floats = rgb.astype(np.float32)
        values = (values - np.float32(spec["mean"])) / np.float32(spec["std"])
        if (scale, zero_point) == (1.0, 0):
            return values[None]
        steps: Floats = np.rint(values / np.float32(scale)) + np.float32(zero_point)
        codes: NDArray[np.int8] = np.clip(steps, -128, 127).astype(np.int8)
        return codes[None]

    def pool(self, features: Mapping[str, NDArray[Any]], boxes: Floats, head: str) -> NDArray[Any]:
        """RoIAlign for one head, in that head's input quantization.

        Parameters
        ----------
        features : mapping of str to ndarray
            Outputs of the backbone.
        boxes : ndarray of float32, shape (N, 4)
            In pixels of the network's input, N ≥ 1.
        head : str
            ``box``, ``mask`` or ``keypoint``.

        Returns
        -------
        ndarray, shape (N, S, S, C)
            Input of the head.
        """
        roi = self.manifest["roi"]
        settings = roi[head]
        names = settings["features"]
        strides = dict(zip(roi["features"], roi["strides"], strict=True))
        given = [self.stages["backbone"].quantization(name) for name in names]
        wanted = self.stages[f"{head}_head"].quantization("rois")
        level_ids = assign_levels(boxes, settings["level_thresholds"])
        # Bilinear weights sum to 1, so features that already have the head's code keep it.
        same = all(params == wanted for params in given)
        pooled = roi_align(
            [features[name] for name in names], boxes, level_ids, [strides[n] for n in names],
            settings["output_size"], settings["sampling_ratio"], 0 if same else given[0][1],
            exact=features[names[0]].dtype == np.int8,
        )  # fmt: skip
        if not same:
            # A box reads one level only: the levels may differ in scale, not in zero point.
            factors = np.array([scale / wanted[0] for scale, _ in given], np.float32)
            pooled *= factors[level_ids, None, None, None]
            pooled += np.float32(wanted[1])
        if wanted == (1.0, 0):  # a float head
            return pooled
        codes = np.empty(pooled.shape, np.int8)
        if not same:  # a mean of int8 values is no less and no more than the values
            pooled = np.clip(pooled, -128, 127, out=pooled)
        return np.rint(pooled, out=codes, casting="unsafe")

    def _box_stage(
        self,
        features: Mapping[str, NDArray[Any]],
        rois: Floats,
        size: InputSize,
        score_threshold: float,
        max_detections: int,
        clock: _Clock,
    ) -> Detections:
        if not len(rois):
            return Detections(rois, np.zeros(0, np.float32), np.zeros(0, np.int64))
        pooled = self.pool(features, rois, "box")
        clock.lap("roi_align")
        head = self.stages["box_head"]
        raw = head.run(rois=pooled)
        clock.lap("box_head")
        found = detections(
            raw["logits"], raw["deltas"], head.quantization, rois, self.manifest["detections"],
            *size.network, score_threshold, max_detections,
        )  # fmt: skip
        clock.lap("nms")
        return found

    def _mask_stage(
        self,
        features: Mapping[str, NDArray[Any]],
        found: Detections,
        size: InputSize,
        score_threshold: float,
        clock: _Clock,
    ) -> Instances:
        if not len(found.boxes):  # an empty batch would crash an interpreter
            return Instances.empty(*size.image, keypoints="keypoint" in self.manifest)
        spec = self.manifest["mask"]
        pooled = self.pool(features, found.boxes, "mask")
        clock.lap("mask_roi_align")
        head = self.stages["mask_head"]
        raw = head.run(rois=pooled)["logits"]
        clock.lap("mask_head")
        probabilities = mask_probabilities(
            raw, head.quantization, found.classes, spec["class_agnostic"]
        )
        scores = found.scores
        if spec["rescore"]:
            scores = rescore(scores, probabilities, spec["threshold"])
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= score_threshold]
        boxes = size.to_image(found.boxes[order])
        masks = paste(probabilities[order], boxes, *size.image, spec["threshold"])
        scores, classes = scores[order], found.classes[order]
        if "soft_nms_threshold" in spec and len(order) > 1:
            scores = mask_soft_nms(masks, boxes, scores, classes, spec["soft_nms_threshold"])
            kept = np.argsort(-scores, kind="stable")
            kept = kept[scores[kept] >= score_threshold]
            order, boxes, masks = order[kept], boxes[kept], masks[kept]
            scores, classes = scores[kept], classes[kept]
        clock.lap("paste")
        return Instances(
            boxes=boxes,
            scores=scores,
            class_ids=self._ids[classes],
            masks=masks,
            class_names=[self._names[c] for c in classes],
            keypoints=self._keypoint_stage(features, found, order, pooled, size, clock),
        )

    def _keypoint_stage(
        self,
        features: Mapping[str, NDArray[Any]],
        found: Detections,
        order: NDArray[np.int64],
        pooled: NDArray[Any],
        size: InputSize,
        clock: _Clock,
    ) -> Floats | None:
        """Keypoints (N, 17, 3) of the detections in `order`, 0 for those of another class.

        `pooled` is what the mask head got for all detections; a keypoint head that reads the same
        regions in the same way gets it too.
        """
        spec = self.manifest.get("keypoint")
        if spec is None:
            return None
        keypoints = np.zeros((len(order), len(spec["names"]), 3), np.float32)
        own = np.flatnonzero(self._ids[found.classes[order]] == spec["class_id"])
        if not len(own):  # an empty batch would crash an interpreter
            return keypoints
        head = self.stages["keypoint_head"]
        boxes = enlarge(found.boxes[order[own]], spec["box_scale"], *size.network)
        roi = self.manifest["roi"]
        code = self.stages["mask_head"].quantization("rois")
        shared = spec["box_scale"] == 1 and roi["keypoint"] == roi["mask"]
        if shared and head.quantization("rois") == code:
            rois = pooled[order[own]]
        else:
            rois = self.pool(features, boxes, "keypoint")
            clock.lap("keypoint_roi_align")
        raw = head.run(rois=rois)["logits"]
        clock.lap("keypoint_head")
        scale, _ = head.quantization("logits")
        sigmas = sigmas_of(spec["names"])
        keypoints[own] = decode_heatmaps(raw, scale, size.to_image(boxes), sigmas)
        clock.lap("keypoints")
        return keypoints
