"""Predictions of a model for a dataset: kept on the way, and spread over a cluster if wanted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgemask.errors import SourceError
from edgemask.evaluate import MAX_DETECTIONS, SCORE_THRESHOLD, predict_dataset
from edgemask.pipeline import Pipeline

from ..jobs.cluster import Cluster, ClusterError, cluster_map
from ..jobs.fingerprint import fingerprint
from ..jobs.journal import Journal

Results = list[dict[str, Any]]


def load_pipeline(path: str | Path) -> Pipeline:
    """The image → instances function of a checkpoint (.npz), a pack (.zip) or a bundled name."""
    if str(path).endswith(".npz"):
        from ..arch.keras_stages import float_pipeline
        from ..checkpoint import load_model

        model, header = load_model(path)
        return float_pipeline(model, header["classes"])
    from edgemask.modelpack import load_pack
    from edgemask.runtime import Stage

    pack = load_pack(path)
    stages = {name: Stage(data, pack.stage_spec(name)) for name, data in pack.stages.items()}
    return Pipeline(pack.manifest, stages)


def model_sha256(path: str | Path) -> str:
    """What tells two models apart; see :func:`..jobs.fingerprint.fingerprint`."""
    return fingerprint(f"{'checkpoint' if str(path).endswith('.npz') else 'pack'}:{path}")


def predict(
    model: str | Path,
    truth: Mapping[str, Any],
    images: str | Path,
    short_side: int | None = None,
    keep: Path | None = None,
    cluster: Cluster | None = None,
    pipeline: Pipeline | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Results:
    """COCO results of all images, in their order.

    Parameters
    ----------
    model : path
        See :func:`load_pipeline`.
    truth : mapping
        Annotations, as :func:`edgemask.evaluate.load_annotations` returns them.
    images : path
        Their folder.
    short_side : int, optional
        None takes the model's own.
    keep : path, optional
        A file of results per image, so that a run that was stopped goes on. The caller removes it.
    cluster : Cluster, optional
        Where to compute; the results are the same.
    pipeline : Pipeline, optional
        The model, if it is loaded already.
    progress : callable, optional
        Called with images done and total.

    Raises
    ------
    SourceError
        An image is missing, damaged, or of another size than annotated.
    JournalError
        `keep` belongs to another model, dataset or size.
    """
    sha256 = model_sha256(model)
    described = [(i["id"], i["file_name"], i["height"], i["width"]) for i in truth["images"]]
    key = {"model": sha256, "short_side": short_side, "images": described}
    journal = Journal(keep, key) if keep else None
    done = {i: entry["results"] for i, entry in journal.done.items()} if journal else {}
    left = [info for info in truth["images"] if info["id"] not in done]
    if cluster:
        found = _over_cluster(cluster, model, sha256, left, Path(images), short_side)
    else:
        found = _here(pipeline or load_pipeline(model), left, images, short_side)
    try:
        for image_id, results in found:
            if journal:
                journal.add(image_id, {"results": results})
            done[image_id] = results
            if progress is not None:
                progress(len(done), len(truth["images"]))
    finally:
        if journal:
            journal.close()
    return [result for info in truth["images"] for result in done[info["id"]]]


def _one(
    pipeline: Pipeline, info: dict[str, Any], folder: str | Path, short_side: int | None
) -> Results:
    return predict_dataset(
        lambda rgb: pipeline(rgb, SCORE_THRESHOLD, MAX_DETECTIONS, short_side),
        {"images": [info], "annotations": [], "categories": []}, folder,
    )  # fmt: skip


def _here(
    pipeline: Pipeline, left: list[dict[str, Any]], images: str | Path, short_side: int | None
) -> Iterator[tuple[int, Results]]:
    for info in left:
        yield info["id"], _one(pipeline, info, images, short_side)


def _over_cluster(
    cluster: Cluster,
    model: str | Path,
    sha256: str,
    left: list[dict[str, Any]],
    images: Path,
    short_side: int | None,
) -> Iterator[tuple[int, Results]]:
    where = Path(model).absolute() if Path(model).exists() else model  # or a bundled name
    make = partial(_predictor, str(where), sha256, short_side)
    sent = ((f"image {info['id']}", (info, _bytes(images / info["file_name"]))) for info in left)
    for name, results in cluster_map(cluster, make, sent):
        yield int(name.removeprefix("image ")), results


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceError(f"{path} cannot be read ({reason}): check the folder") from error


def _predictor(model: str, sha256: str, short_side: int | None) -> Callable[[Any], Results]:
    """On a worker: load the model; return the function from an image's bytes to its results."""
    pipeline = load_pipeline(model)
    if model_sha256(model) != sha256:
        raise ClusterError(f"a worker has another {model} than this machine: copy the file")

    def work(payload: tuple[dict[str, Any], bytes]) -> Results:
        info, content = payload
        with tempfile.TemporaryDirectory() as folder:
            name = f"image{os.path.splitext(info['file_name'])[1]}"
            path = Path(folder) / name
            path.write_bytes(content)
            try:
                return _one(pipeline, info | {"file_name": name}, folder, short_side)
            except SourceError as error:  # under a name that exists on the worker only
                raise SourceError(str(error).replace(str(path), info["file_name"])) from error

    return work
