"""Accuracy of any pipeline, float or int8, on an annotated set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgemask.coco_types import IOU_TYPES, check_images
from edgemask.errors import SourceError
from edgemask.evaluate import (
    MAX_DETECTIONS,
    SCORE_THRESHOLD,
    evaluate,
    load_annotations,
    predict_dataset,
)
from edgemask.pipeline import Pipeline

from ..data.dataset import DatasetError, DatasetWarning, check_size, read_size


def load_truth(path: Path, limit: int | None = None) -> dict[str, Any]:
    """COCO annotations, cut to the first ``limit`` images, which can be read and compared."""
    truth = load_annotations(path)
    check_images(truth["images"], ("file_name", "height", "width"))
    if not truth["images"]:
        raise SourceError(f"{path} lists no image: there is nothing to measure on")
    if limit:
        truth["images"] = truth["images"][:limit]
        kept = {image["id"] for image in truth["images"]}
        truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in kept]
    return truth


def measure(
    pipeline: Pipeline,
    truth: dict[str, Any],
    images: Path,
    short_side: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, dict[str, float | None]]:
    """Box, mask and, if the pipeline has them, keypoint AP over its own classes.

    See :func:`edgemask.evaluate.evaluate`.
    """
    results = predict_dataset(
        lambda rgb: pipeline(rgb, SCORE_THRESHOLD, MAX_DETECTIONS, short_side),
        truth, images, progress,
    )  # fmt: skip
    return measure_results(results, truth, pipeline.manifest)


def measure_results(
    results: list[dict[str, Any]], truth: dict[str, Any], manifest: Mapping[str, Any]
) -> dict[str, dict[str, float | None]]:
    """As :func:`measure`, of results that are there already, by a model with this manifest."""
    classes = [entry["id"] for entry in manifest["classes"]]
    kinds = IOU_TYPES if "keypoint" in manifest else IOU_TYPES[:2]
    return evaluate(results, truth, kinds, category_ids=classes)


class DevMeasurement:
    """Measures the averaged weights of a trainer at intervals.

    Parameters
    ----------
    trainer : Trainer
    classes : list of ``{"id", "name"}``
    annotations, images : paths of the development set

    Raises
    ------
    DatasetError
        An image is missing or of another size than annotated, a class is not listed, or there is
        nothing to measure.
    SourceError, InputError, RuntimeUnavailable
        As :func:`edgemask.evaluate.evaluate`.
    """

    def __init__(self, trainer, classes: list[dict[str, Any]], annotations: Path, images: Path):
        from ..arch.keras_stages import float_pipeline

        settings = trainer.config.train
        self.trainer = trainer
        self.images = images
        self.truth = load_truth(annotations, settings.eval_images)
        # Found out now, not epochs later at the first measurement.
        names = [image["file_name"] for image in self.truth["images"]]
        missing = [name for name in names if not (Path(images) / name).is_file()]
        if missing:
            raise DatasetError(
                f"{len(missing)} images of {annotations} are missing in {images}, first: "
                f"{missing[0]}"
            )
        known = {category["id"] for category in self.truth["categories"]}
        unknown = [entry["id"] for entry in classes if entry["id"] not in known]
        if unknown:
            raise DatasetError(f"class ids {unknown} are not in {annotations}; it has {known}")
        for info in self.truth["images"]:
            path = Path(images) / info["file_name"]
            check_size(path, info, read_size(path, info))
        self.pipeline = float_pipeline(trainer.model, classes)
        self.measured = self._labelled(annotations)
        steps_per_epoch = trainer.total_steps / settings.epochs
        self.every = max(1, round(settings.eval_epochs * steps_per_epoch))

    def _labelled(self, annotations: Path) -> dict[str, str]:
        """Which figures there will be, name → kind of :func:`measure`.

        Boxes without masks, or people without keypoints, give no AP: a 0 would look like a network
        that learns nothing.
        """
        empty = measure_results([], self.truth, self.pipeline.manifest)
        kinds = {"box": "bbox", "mask": "segm", "keypoint": "keypoints"}
        asked = {name: kind for name, kind in kinds.items() if kind in empty}
        found = {name: kind for name, kind in asked.items() if empty[kind]["AP"] is not None}
        images = f"the first {len(self.truth['images'])} images of {annotations}"
        if not found:
            raise DatasetError(
                f"nothing to measure: {images} have no object of the model's classes; give another "
                "--dev or a larger train.eval_images, or leave out --dev"
            )
        if missing := [name for name in asked if name not in found]:
            warnings.warn(
                f"no dev AP of {' and '.join(missing)}: none is labelled in {images}",
                DatasetWarning,
                stacklevel=3,
            )
        return found

    def due(self) -> bool:
        """Whether this step is one to measure at."""
        return self.trainer.step % self.every == 0

    def __call__(self) -> dict[str, float]:
        """``dev_box_AP``, ``dev_mask_AP``, ``dev_keypoint_AP`` of the averaged weights.

        Only what the development set has labels for.
        """
        with self.trainer.averaged():
            report = measure(self.pipeline, self.truth, self.images)
        return {
            f"dev_{name}_AP": round(report[kind]["AP"] or 0.0, 4)
            for name, kind in self.measured.items()
        }
