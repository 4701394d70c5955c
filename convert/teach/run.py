"""Teaching a whole dataset: image by image into a journal, then one finished COCO file."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from PIL import Image

from edgemask.errors import SourceError
from edgemask.evaluate import check_annotations, load_annotations
from edgemask.images import expand_source, load_image
from edgemask.outputs import image_ids, write_json

from ..data.coco_fields import DatasetError, check_fields, check_ids
from ..data.dataset import DatasetWarning, upright_size
from ..jobs.cluster import Cluster, ClusterError, cluster_map
from ..jobs.fingerprint import fingerprint
from ..jobs.journal import Journal
from .merge import Rules, Taught, teach_image
from .protocol import Teacher
from .registry import make_teacher
from .vocabulary import Vocabulary

__all__ = ["RemoteTeacher", "assemble", "read_dataset", "teach_dataset"]


def read_dataset(
    annotations: str | Path | None, images: str | Path, categories: Mapping[int, str]
) -> dict[str, Any]:
    """Read a COCO file, or describe a folder of unlabelled images as one.

    Parameters
    ----------
    annotations : path or None
    images : path of the folder
    categories : mapping of int to str
        The teacher's, for a folder without annotations.

    Raises
    ------
    SourceError
        A file or folder is missing, not COCO, or has no image that can be read.
    DatasetError
        A field is missing in the file, or none of its images is in the folder.
    """
    if annotations is not None:
        data = load_annotations(annotations)
        check_fields(data, str(annotations))
        _check_fit(data, annotations)
        if not any((Path(images) / info["file_name"]).is_file() for info in data["images"]):
            raise DatasetError(f"no image that {annotations} lists is in {images}: check --images")
        return data
    paths = expand_source(str(images))
    described, broken = [], []
    for path, image_id in zip(paths, image_ids(paths), strict=True):
        try:
            with Image.open(path) as image:
                width, height = upright_size(image)
        except (OSError, ValueError, Image.DecompressionBombError):
            broken.append(path)
            continue
        entry = {"id": image_id, "file_name": Path(path).name, "height": height, "width": width}
        described.append(entry | {"labeled_cats": []})
    _warn(broken, "files are not images and were left out")
    if not described:
        raise SourceError(f"{images} has no image that can be read: give a folder of photographs")
    listed = [{"id": key, "name": name} for key, name in categories.items()]
    return {"images": described, "annotations": [], "categories": listed}


def _check_fit(data: dict[str, Any], name: str | Path) -> None:
    """Refuse before the hours of teaching what could not be merged or written after them."""
    check_ids(data, str(name))
    check_annotations(data, ["bbox"])
    try:
        json.dumps(data, allow_nan=False)
    except ValueError as error:
        raise DatasetError(
            f"{name} has a NaN or an infinite number, which JSON does not allow: fix it"
        ) from error


def teach_dataset(
    teacher: Teacher,
    data: dict[str, Any],
    images: str | Path,
    out: str | Path,
    rules: Rules,
    run: Mapping[str, Any],
    complete: bool = False,
    category_ids: Sequence[int] | None = None,
    progress: Callable[[int, int], object] | None = None,
    remote: RemoteTeacher | None = None,
) -> dict[str, int]:
    """Teach every image of a dataset and write the merged COCO file.

    Parameters
    ----------
    teacher : Teacher
    data : dict
        What :func:`read_dataset` returned.
    images : path of the folder
    out : path of the JSON file
        A run that was stopped leaves ``OUT.partial`` beside it, and goes on from there.
    rules : Rules
    run : mapping
        What makes the teacher what it is (its command-line options, the hash of its weights), for
        the record. A stopped run goes on only where all of it is the same.
    complete : bool
        See :func:`assemble`.
    category_ids : sequence of int, optional
        Of the dataset, to teach; by default all that the teacher knows.
    progress : callable, optional
        Called with images done and total after each image.
    remote : RemoteTeacher, optional
        Workers of a cluster, each with a teacher like `teacher`, do the labelling.

    Returns
    -------
    dict of str to int
        How many masks were filled, instances and ignore regions added, and images left out.

    Raises
    ------
    TeacherError, SourceError, OutputError
        The journal belongs to another run, an image is of another size than annotated, a file
        cannot be written.
    """
    out = Path(out)
    words = Vocabulary(teacher.categories, data["categories"], category_ids)
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    record = {"teacher": teacher.name, "rules": dataclasses.asdict(rules), **run}
    record["categories"] = words.known
    journal = Journal(out.with_name(out.name + ".partial"), {**record, "data_sha256": digest})
    by_image: dict[int, list[dict]] = {info["id"]: [] for info in data["images"]}
    for annotation in data["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    unread: set[int] = set()
    left = [info for info in data["images"] if info["id"] not in journal.done]
    items = ((Path(images) / info["file_name"], info, by_image[info["id"]]) for info in left)
    if remote is None:
        label = partial(_label, teacher, words, rules)
        results = ((info["id"], label(path, path, info, own)) for path, info, own in items)
    else:
        results = remote.label(items, data["categories"], category_ids, rules)
    before = len(data["images"]) - len(left)
    if progress is not None and before:
        progress(before, len(data["images"]))
    try:
        for count, (image_id, result) in enumerate(results, before + 1):
            if result is None:
                unread.add(image_id)
            else:
                journal.add(image_id, result)
            if progress is not None:
                progress(count, len(data["images"]))
    except BaseException:
        journal.close()
        raise
    unreadable = [f"{i['file_name']} (id {i['id']})" for i in left if i["id"] in unread]
    _warn(unreadable, f"images are missing in {images} or damaged, and were not taught")
    merged, counts = assemble(data, {e["image_id"]: e for e in journal}, complete)
    merged["info"] = {**(data.get("info") or {}), "taught_by": record}
    write_json(out, merged)
    journal.close(remove=True)
    return counts | {"images left out": len(unreadable)}


@dataclasses.dataclass(frozen=True)
class RemoteTeacher:
    """A teacher on the workers of a cluster.

    Attributes
    ----------
    cluster : Cluster
    spec, short_sides, flip
        What :func:`.registry.make_teacher` takes. Files are looked for where they are here.
    sha256 : str
        :func:`..jobs.fingerprint.fingerprint` of the teacher here; a worker with another is
        refused.
    """

    cluster: Cluster
    spec: str
    short_sides: tuple[int, ...] | None
    flip: bool | None
    sha256: str

    def label(
        self,
        items: Iterator[tuple[Path, dict[str, Any], list[dict]]],
        categories: list[dict[str, Any]],
        category_ids: Sequence[int] | None,
        rules: Rules,
    ) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yield image ids and journal entries, None for an image that cannot be read."""
        make = partial(_labeller, self, categories, category_ids, rules)
        sent = (
            (f"image {info['id']}", (path, _bytes(path), info, own)) for path, info, own in items
        )
        for key, result in cluster_map(self.cluster, make, sent):
            yield int(key.removeprefix("image ")), result


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _labeller(
    remote: RemoteTeacher,
    categories: list[dict[str, Any]],
    category_ids: Sequence[int] | None,
    rules: Rules,
) -> Callable[[Any], dict[str, Any] | None]:
    """On a worker: make the teacher, and the function from an image's bytes to its entry."""
    teacher = make_teacher(remote.spec, remote.short_sides, remote.flip)
    if fingerprint(remote.spec) != remote.sha256:
        raise ClusterError(
            f"a worker has other weights for {remote.spec} than this machine: copy the files"
        )
    words = Vocabulary(teacher.categories, categories, category_ids)

    def work(payload: tuple[Path, bytes | None, dict[str, Any], list[dict]]):
        path, content, info, own = payload
        if content is None:
            return None
        return _label(teacher, words, rules, io.BytesIO(content), path, info, own)

    return work


def _label(
    teacher: Teacher,
    words: Vocabulary,
    rules: Rules,
    source: Path | IO[bytes],
    path: Path,
    info: Mapping[str, Any],
    own: list[dict],
) -> dict[str, Any] | None:
    """One image's journal entry, or None if the image cannot be read."""
    image = _read(source, path, info)
    if image is None:
        return None
    return _to_json(teach_image(image, info, own, teacher, words, rules))


def assemble(
    data: Mapping[str, Any], results: Mapping[int, Mapping[str, Any]], complete: bool = False
) -> tuple[dict[str, Any], dict[str, int]]:
    """Merge results per image into the dataset.

    Parameters
    ----------
    data : mapping
        The COCO dataset; it is not changed.
    results : mapping of image id to journal entry
    complete : bool
        Believe that what the teacher has not found is not there: the categories it looked for
        join the image's ``labeled_cats``, and ``exhaustive`` becomes 1 where it looked for all of
        them. Without it the labels claim no more than before.

    Returns
    -------
    dict, dict
        The merged dataset, and how many masks, instances and ignore regions came in.
    """
    filled = {int(key): v for entry in results.values() for key, v in entry["filled"].items()}
    annotations = [{**a, **filled.get(a["id"], {})} for a in data["annotations"]]
    next_id = max((a["id"] for a in annotations), default=0) + 1
    everything = [category["id"] for category in data["categories"]]
    images = []
    counts = {"masks": len(filled), "instances": 0, "ignore regions": 0}
    for info in data["images"]:
        entry = results.get(info["id"])
        if entry is None:
            images.append(dict(info))
            continue
        images.append(_image_entry(info, entry["looked_for"], everything, complete))
        for added in entry["added"]:
            annotations.append({"id": next_id, **added})
            next_id += 1
            counts["ignore regions" if added["iscrowd"] else "instances"] += 1
    return {**data, "images": images, "annotations": annotations}, counts


def _image_entry(
    info: Mapping[str, Any], looked_for: list[int], everything: list[int], complete: bool
) -> dict[str, Any]:
    entry = {**info, "taught_cats": looked_for}
    if complete and looked_for:
        labelled = info.get("labeled_cats")
        if labelled is not None:
            entry["labeled_cats"] = sorted({*labelled, *looked_for})
        if set(everything if labelled is None else labelled) <= set(looked_for):
            entry["exhaustive"] = 1
    return entry


def _to_json(taught: Taught) -> dict[str, Any]:
    return {
        "looked_for": taught.looked_for,
        "filled": {str(key): value for key, value in taught.filled.items()},
        "added": taught.added,
    }


def _read(source: Path | IO[bytes], path: Path, info: Mapping[str, Any]):
    """The image, or None if it cannot be read; a wrong size would put labels in wrong places."""
    try:
        image = load_image(source)
    except SourceError:
        return None
    if image.shape[:2] != (info["height"], info["width"]):
        raise SourceError(
            f"image {info['id']}: {path} is {image.shape[1]}x{image.shape[0]}, the annotations say "
            f"{info['width']}x{info['height']}: use the images that were annotated"
        )
    return image


def _warn(names: list[str], text: str) -> None:
    if names:
        message = f"{len(names)} {text}, first: {names[0]}"
        warnings.warn(message, DatasetWarning, stacklevel=3)
