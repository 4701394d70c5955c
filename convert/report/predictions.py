"""What a pack or a checkpoint finds in the images of a dataset, kept on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgemask.errors import InputError, SourceError
from edgemask.evaluate import MAX_DETECTIONS, SCORE_THRESHOLD, predict_dataset

from ..jobs.journal import Journal

__all__ = ["predict", "read_predictions"]


def predict(
    model: str | Path,
    truth: Mapping[str, Any],
    images: str | Path,
    cache: str | Path,
    short_side: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[dict[str, Any]]:
    """Predictions of a model for every image, those of an earlier or a killed run taken over.

    Parameters
    ----------
    model : path
        A pack (``.zip``), or a checkpoint (``.npz``), which runs in float.
    truth : mapping
        What :func:`edgemask.evaluate.load_annotations` returned.
    images : path
        Where the ``file_name`` of each image is.
    cache : path
        Folder for the predictions; a file per model, its content, and short side.
    short_side : int, optional
        The model's own by default.
    progress : callable, optional
        Called with images done and images in all.

    Returns
    -------
    list of dict
        COCO results, in the order of the images.
    """
    model = Path(model)
    run = {
        "model": hashlib.sha256(model.read_bytes()).hexdigest(),
        "short_side": short_side,
        "images": str(Path(images).resolve()),
    }
    key = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:12]
    journal = Journal(Path(cache) / f"{model.stem}-{key}.jsonl", run)
    try:
        todo = [im for im in truth["images"] if _entry(journal, im) is None]
        segment = _segmenter(model, short_side) if todo else None
        count = len(truth["images"]) - len(todo)
        for info in todo:
            one = {"images": [info], "annotations": [], "categories": []}
            found = predict_dataset(segment, one, images)
            journal.add(info["id"], {"file_name": info["file_name"], "results": found})
            count += 1
            if progress is not None:
                progress(count, len(truth["images"]))
        entries = (_entry(journal, info) for info in truth["images"])
        return [result for entry in entries if entry for result in entry["results"]]
    finally:
        journal.close()


def _entry(journal: Journal, info: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is kept of an image, unless the id meant another file then."""
    entry = journal.done.get(info["id"])
    return entry if entry and entry["file_name"] == info["file_name"] else None


def _segmenter(model: Path, short_side: int | None) -> Callable[[Any], Any]:
    if model.suffix != ".npz":
        from edgemask.segmenter import Segmenter

        return Segmenter(
            model, score_threshold=SCORE_THRESHOLD, max_detections=MAX_DETECTIONS,
            short_side=short_side,
        )  # fmt: skip
    from ..arch.keras_stages import float_pipeline
    from ..checkpoint import load_model

    network, header = load_model(model)
    pipeline = float_pipeline(network, header["classes"])
    return lambda rgb: pipeline(rgb, SCORE_THRESHOLD, MAX_DETECTIONS, short_side)


def read_predictions(path: str | Path, truth: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What ``edgemask eval --save`` wrote, cut to the images of the annotations.

    Raises
    ------
    SourceError
        Missing, or not a list of COCO results.
    InputError
        It is of other images.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        named = {entry["image_id"] for entry in entries}
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except (ValueError, TypeError, KeyError) as error:
        raise SourceError(
            f"{path} is not a list of COCO results ({error}): give what edgemask eval --save wrote"
        ) from error
    images = {info["id"] for info in truth["images"]}
    if named and not named & images:
        raise InputError(f"{path} has predictions for none of the annotated images: check both")
    return [entry for entry in entries if entry["image_id"] in images]
