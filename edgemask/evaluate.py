"""COCO average precision with pycocotools, of boxes, masks and keypoints, labelled in part or not.

Two optional fields of an image in the annotation file say how far its labels go:

``labeled_cats``
    The category ids whose every instance is labelled in this image. Detections and annotations of
    any other category are left out there: nobody knows whether they are right.
``exhaustive``
    0 if instances of the labelled categories may be missing too. Annotations of such an image
    count as usual, found or missed, but a detection that matches none of them is ignored, neither
    a hit nor a false positive (the rule of LVIS, Gupta et al. 2019, for its "not exhaustive"
    categories).

Files without these fields are evaluated as COCO files always are. An annotation without a
segmentation counts for boxes; for masks its box is a region that is ignored, and so it is for
keypoints if it has none.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgemask.coco_types import (
    IOU_TYPES,
    KEYPOINT_METRICS,
    METRICS,
    check_entries,
    check_images,
    check_rle,
    results_for,
    truth_for,
)
from edgemask.errors import InputError, RuntimeUnavailable, SourceError
from edgemask.images import load_image
from edgemask.instances import Instances
from edgemask.outputs import coco_results
from edgemask.parallel import in_order

__all__ = [
    "KEYPOINT_METRICS",
    "MAX_DETECTIONS",
    "METRICS",
    "SCORE_THRESHOLD",
    "check_annotations",
    "evaluate",
    "load_annotations",
    "predict_dataset",
    "require_pycocotools",
]

SCORE_THRESHOLD = 0.01
MAX_DETECTIONS = 100


def load_annotations(annotations: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Read a COCO annotation file, or copy and check one already read.

    Returns
    -------
    dict
        With ``images``, ``annotations`` and ``categories``; ``iscrowd`` and ``area`` are filled in
        where an annotation lacks them.

    Raises
    ------
    SourceError
        Missing, not JSON, or not COCO annotations: a list or a field is missing, or two images
        have one id.
    """
    if isinstance(annotations, Mapping):
        name, data = "the annotations", copy.deepcopy(dict(annotations))
    else:
        name, data = os.fspath(annotations), _read_json(annotations)
    try:
        check_entries(data, name)
        for image in data["images"]:
            listed = image.get("labeled_cats") or []
            if not isinstance(listed, list | tuple) or not all(isinstance(c, int) for c in listed):
                raise SourceError(
                    f"{name}: image {image['id']} has labeled_cats {image['labeled_cats']!r}: give "
                    "a list of category ids"
                )
        image_ids = {image["id"] for image in data["images"]}
        categories = {category["id"] for category in data["categories"]}
        for entry in data["annotations"]:
            if entry["image_id"] not in image_ids or entry["category_id"] not in categories:
                raise SourceError(
                    f"{name}: annotation {entry.get('id')} is for image {entry['image_id']} and "
                    f"category {entry['category_id']}, one of which is not listed: fix the file"
                )
            if entry.get("iscrowd") is None:
                entry["iscrowd"] = 0
            if entry.get("area") is None:
                # A box that is none is named where it is needed.
                box = entry["bbox"] or (0, 0, 0, 0)
                entry["area"] = box[2] * box[3]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise SourceError(
            f"{name} is not a COCO annotation file ({type(error).__name__}: {error}): it needs "
            "images, annotations and categories, as in instances_val2017.json"
        ) from error
    return data


def check_annotations(annotations: Mapping[str, Any], iou_types: Sequence[str]) -> None:
    """Find out before anything is segmented whether annotations can be compared with.

    Parameters
    ----------
    annotations : mapping
        As :func:`load_annotations` returns them.
    iou_types : sequence of str
        As for :func:`evaluate`.

    Raises
    ------
    SourceError
        Naming the annotation.
    """
    if "segm" in iou_types:  # pycocotools draws the outlines
        check_images(annotations["images"], ("height", "width"))
        sizes = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}
        for entry in annotations["annotations"]:
            check_rle(entry, sizes[entry["image_id"]])
    for kind in iou_types:
        truth_for(annotations["annotations"], kind)


def evaluate(
    predictions: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    annotations: str | os.PathLike[str] | Mapping[str, Any],
    iou_types: Sequence[str] = ("bbox", "segm"),
    category_ids: Iterable[int] | None = None,
) -> dict[str, dict[str, float | None]]:
    """Compare predictions with annotations.

    Parameters
    ----------
    predictions : path or sequence of dict
        COCO results: image_id, category_id, bbox, score, segmentation, keypoints.
    annotations : path or dict
        COCO annotations; see the module's text for the two optional fields of an image.
    iou_types : sequence of str
        Some of ``bbox``, ``segm`` and ``keypoints`` (object keypoint similarity in place of IoU).
    category_ids : iterable of int, optional
        Categories to average over; all that are listed by default. A model that knows only some
        must be measured on those.

    Returns
    -------
    dict
        For each IoU type the twelve `METRICS`, for keypoints the ten `KEYPOINT_METRICS`, 0 to 1,
        or None where nothing of that size is labelled. AP is the mean over IoU 0.50 to 0.95.

    Raises
    ------
    SourceError
        A file is missing or not what it should be.
    InputError
        An unknown IoU type or category, or predictions for images that are not annotated.
    RuntimeUnavailable
        pycocotools is not installed.
    """
    for kind in iou_types:
        if kind not in IOU_TYPES:
            raise InputError(f"iou type {kind!r} is unknown: use {' or '.join(IOU_TYPES)}")
    coco_class, coco_eval_class = require_pycocotools()
    data = load_annotations(annotations)
    known = {category["id"] for category in data["categories"]}
    chosen = sorted(known if category_ids is None else set(category_ids))
    if not chosen or not known.issuperset(chosen):
        raise InputError(
            f"categories {sorted(set(chosen) - known)} are not in the annotations, which have "
            f"{sorted(known)}: choose among those"
        )
    check_annotations(data, iou_types)
    results = _load_predictions(predictions, {image["id"] for image in data["images"]})
    labelled = {
        image["id"]: set(image["labeled_cats"])
        for image in data["images"]
        if image.get("labeled_cats") is not None
    }

    def is_labelled(entry: Mapping[str, Any]) -> bool:
        return entry["category_id"] in labelled.get(entry["image_id"], known)

    data["annotations"] = [entry for entry in data["annotations"] if is_labelled(entry)]
    results = [entry for entry in results if is_labelled(entry)]
    partial = {image["id"] for image in data["images"] if image.get("exhaustive", 1) == 0}
    report = {}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints at every step
        for kind in iou_types:
            truth = coco_class()
            truth.dataset = {**data, "annotations": truth_for(data["annotations"], kind)}
            truth.createIndex()
            found = _as_coco(truth, results_for(results, kind))
            evaluation = coco_eval_class(truth, found, kind)
            evaluation.params.catIds = chosen
            evaluation.evaluate()
            _forgive_unmatched(evaluation.evalImgs, partial)
            evaluation.accumulate()
            evaluation.summarize()
            names = KEYPOINT_METRICS if kind == "keypoints" else METRICS
            report[kind] = {
                name: float(value) if value >= 0 else None
                for name, value in zip(names, evaluation.stats, strict=True)
            }
    return report


def predict_dataset(
    segmenter: Callable[[Any], Instances] | Sequence[Callable[[Any], Instances]],
    annotations: str | os.PathLike[str] | Mapping[str, Any],
    image_dir: str | os.PathLike[str],
    progress: Callable[[int, int], object] | None = None,
) -> list[dict[str, Any]]:
    """Segment every image of an annotation file.

    Parameters
    ----------
    segmenter : callable, or sequence of callables
        uint8 (H, W, 3) to Instances. Build it with `SCORE_THRESHOLD` and `MAX_DETECTIONS`: average
        precision counts the unsure detections too. Several that are alike work on as many images at
        the same time, each in a thread of its own.
    annotations : path or dict
    image_dir : path
        Where the ``file_name`` of each image is.
    progress : callable, optional
        Called with the number of images done and the total after each image.

    Returns
    -------
    list of dict
        COCO results, ready for :func:`evaluate` and for a JSON file.

    Raises
    ------
    SourceError
        An image is missing, damaged or not of the size that its annotation says: an average over
        the rest would not be the dataset's.
    """
    images = load_annotations(annotations)["images"]
    check_images(images, ("file_name", "height", "width"))

    def predict(own: Callable[[Any], Instances], image: Mapping[str, Any]) -> list[dict[str, Any]]:
        path, size = Path(image_dir) / image["file_name"], (image["height"], image["width"])
        rgb = load_image(path)
        if rgb.shape[:2] != size:
            raise SourceError(
                f"{path} is {rgb.shape[1]}x{rgb.shape[0]} pixels, its annotation says "
                f"{size[1]}x{size[0]}: use the images that were annotated, not resized or rotated"
            )
        return coco_results(own(rgb), image["id"])

    workers = segmenter if isinstance(segmenter, Sequence) else [segmenter]
    results: list[dict[str, Any]] = []
    with contextlib.closing(in_order(images, workers, predict)) as found:
        for done, (_, predictions) in enumerate(found, 1):
            results.extend(predictions)
            if progress is not None:
                progress(done, len(images))
    return results


def require_pycocotools() -> tuple[Any, Any]:
    """Return pycocotools' COCO and COCOeval, or raise RuntimeUnavailable."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except Exception as error:  # built for another NumPy it raises ValueError
        raise RuntimeUnavailable(
            f"evaluation needs pycocotools, which does not import ({error}): "
            "pip install pycocotools"
        ) from error
    return COCO, COCOeval


def _read_json(path: str | os.PathLike[str]) -> Any:
    name = os.fspath(path)
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceError(f"{name} cannot be read ({reason}): check the path") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{name} is not valid JSON ({error}): give a COCO file") from error


def _load_predictions(
    predictions: str | os.PathLike[str] | Sequence[Mapping[str, Any]], image_ids: set[Any]
) -> list[dict[str, Any]]:
    if isinstance(predictions, str | os.PathLike):
        name, entries = os.fspath(predictions), _read_json(predictions)
    else:
        name, entries = "the predictions", predictions
    if isinstance(entries, Mapping) or not isinstance(entries, Sequence):
        raise SourceError(f"{name}: a COCO results file is a list of detections, not an object")
    for number, entry in enumerate(entries):
        try:
            image_id, _ = entry["image_id"], entry["category_id"]
            float(entry["score"])
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(
                f"{name}: entry {number} is not a COCO result ({type(error).__name__}: {error}): "
                "it needs image_id, category_id, score, bbox and segmentation"
            ) from error
        if image_id not in image_ids:
            raise InputError(
                f"{name}: entry {number} is for image {image_id}, which is not annotated: give the "
                "annotations that belong to these predictions"
            )
    return [dict(entry) for entry in entries]


def _as_coco(truth: Any, entries: list[dict[str, Any]]) -> Any:
    """Return the predictions as pycocotools wants them."""
    if entries:
        return truth.loadRes(entries)
    nothing = type(truth)()
    nothing.dataset = {"images": truth.dataset["images"], "annotations": []}
    nothing.dataset["categories"] = truth.dataset["categories"]
    nothing.createIndex()
    return nothing


def _forgive_unmatched(per_image: Iterable[dict[str, Any] | None], images: set[Any]) -> None:
    """Set detections without a match to ignored, in images whose labels may lack instances."""
    for entry in per_image:
        if entry is not None and entry["image_id"] in images:
            entry["dtIgnore"] = entry["dtIgnore"] | (entry["dtMatches"] == 0)
