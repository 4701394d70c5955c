"""labelme's JSON files to one COCO file.

labelme (Wada 2016) writes one file per photograph. What it calls a group, several shapes with the
same ``group_id``, becomes one object: that is how an object in two visible parts is labelled.
"""

from __future__ import annotations

import difflib
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from edgemask.images import SUFFIXES

from .dataset import DatasetError, DatasetWarning, upright_size
from .labelme_shapes import AREAS, check_points, shape_annotation

__all__ = ["import_labelme", "keep_labelme", "read_labels"]

NO_LABELS = ("__ignore__", "_background_")  # lines that labelme's own label lists begin with


@dataclass
class _Notes:
    """What was left out, by reason, in the order it was met."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        self.found.setdefault(reason, []).append(where)

    def warn(self) -> None:
        for reason, places in self.found.items():
            warnings.warn(f"{len(places)} {reason}, first: {places[0]}", DatasetWarning, 3)


def read_labels(text: str) -> list[str]:
    """Labels from a file with one a line, or from a list with commas.

    Raises
    ------
    DatasetError
        There is none, or one occurs twice; a file is named that is not there.
    """
    path = Path(text)
    a_name = path.suffix.lower() == ".txt" or (path.name != text and "," not in text)
    if a_name and not path.is_file():
        raise DatasetError(
            f"there is no file of labels {text}: check the path, or give the labels themselves"
        )
    try:
        # Editors on Windows put a mark before the first label.
        given = path.read_text(encoding="utf-8-sig") if path.is_file() else None
        lines = text.split(",") if given is None else given.splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read the labels in {path}: {error}") from error
    labels = [line.strip() for line in lines]
    labels = [label for label in labels if label and label not in NO_LABELS]
    twice = [label for label in dict.fromkeys(labels) if labels.count(label) > 1]
    if not labels or twice:
        problem = f"names {twice[0]!r} twice" if twice else "has no label"
        raise DatasetError(f"the list of labels {text!r} {problem}: give each label once")
    return labels


def keep_labelme(folder: str | Path, out: Path) -> None:
    """Refuse to write over a labelme file of a folder.

    Raises
    ------
    DatasetError
        `out` is one.
    """
    inside = {path.resolve() for path in Path(folder).rglob("*.json")}
    if out.resolve() in inside and _read(out) is not None:
        raise DatasetError(f"{out} is a labelme file of {folder}: give --out another name")


def import_labelme(
    folder: str | Path,
    images: str | Path | None = None,
    labels: Sequence[str] | None = None,
    empty: bool = False,
    boxes: bool = False,
) -> dict[str, Any]:
    """Collect a folder of labelme files, and its folders, in one COCO dataset.

    Polygons, rectangles, circles and masks become objects; points and lines have no area and are
    left out. The photograph that a file has inside itself (``imageData``) is not looked at.

    Parameters
    ----------
    folder : path
        With labelme's JSON files. COCO files among them are passed over.
    images : path, optional
        What ``file_name`` will be relative to; `folder` by default.
    labels : sequence of str, optional
        Categories 1, 2, … in this order; by default the labels that occur, sorted.
    empty : bool
        List the photographs that no JSON file belongs to as photographs without objects.
    boxes : bool
        A rectangle says where an object is, not what its outline is: the annotation gets no mask,
        and a teacher can fill it.

    Returns
    -------
    dict
        ``images``, ``annotations``, ``categories``; polygons stay polygons, masks become RLE.

    Raises
    ------
    DatasetError
        Naming the file: not labelme's, a label that is not in the list, a group with two labels, a
        photograph of another size than the file says, two files for one photograph; nothing usable.

    Warns
    -----
    DatasetWarning
        For each kind of thing that was left out: how many, and the first.
    """
    folder, notes = Path(folder), _Notes()
    root = folder if images is None else Path(images)
    if not folder.is_dir() or not root.is_dir():
        missing = root if folder.is_dir() else folder
        raise DatasetError(f"{missing} is not a folder: give the one with labelme's files")
    listed: list[dict[str, Any]] = []
    objects: list[tuple[int, str, list[dict[str, Any]], str]] = []
    owner: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.json")):
        data = _read(path)
        if data is None:
            continue
        photograph = _find_image(path, data, root)
        if photograph is None:
            notes.add("labelme files name photographs that are missing", f"{path} names "
                      f"{data.get('imagePath')!r}")  # fmt: skip
            continue
        info = _image_entry(len(listed) + 1, photograph, root, path, data)
        if info["file_name"] in owner:
            raise DatasetError(
                f"{path} and {owner[info['file_name']]} are both of {info['file_name']}: keep one"
            )
        owner[info["file_name"]] = path
        listed.append(info)
        for label, shapes in _groups(path, data, notes):
            objects.append((info["id"], label, shapes, str(path)))
    if not listed:
        notes.warn()
        raise DatasetError(f"{folder} has no labelme file whose photograph is there")
    if empty:
        listed += _unlabelled(root, set(owner), len(listed))
    names = sorted({label for _, label, _, _ in objects}) if labels is None else list(labels)
    if not names:
        raise DatasetError(f"nothing is labelled in {folder}: draw the objects first")
    categories = [{"id": n, "name": name} for n, name in enumerate(names, 1)]
    sizes = {info["id"]: (info["height"], info["width"]) for info in listed}
    annotations: list[dict[str, Any]] = []
    for image_id, label, shapes, where in objects:
        if label not in names:
            near = difflib.get_close_matches(label, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
            raise DatasetError(f"{where}: label {label!r} is not in the list of labels; {hint}")
        made = shape_annotation(shapes, *sizes[image_id], boxes)
        if made is None:
            notes.add("objects have no area inside the photograph", f"a {label} in {where}")
            continue
        head = {"id": len(annotations) + 1, "image_id": image_id}
        annotations.append({**head, "category_id": names.index(label) + 1, "iscrowd": 0, **made})
    notes.warn()
    return {"images": listed, "annotations": annotations, "categories": categories}


def _read(path: Path) -> dict[str, Any] | None:
    """One labelme file, or None for a COCO file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as JSON ({error}): save it again") from error
    if isinstance(data, dict) and {"images", "annotations", "categories"} <= data.keys():
        return None
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        raise DatasetError(f"{path} is not labelme's, it has no list 'shapes': move it elsewhere")
    if not isinstance(data.get("imagePath"), str) or not data["imagePath"]:
        raise DatasetError(f"{path} has no 'imagePath': save it again with labelme")
    return data


def _find_image(path: Path, data: dict[str, Any], root: Path) -> Path | None:
    """The photograph, where the file says, or of the same name beside it or in the root."""
    said = PurePosixPath(data["imagePath"].replace("\\", "/"))  # labelme on Windows
    for candidate in (path.parent / said, path.parent / said.name, root / said.name):
        if candidate.is_file():
            return candidate
    return None


def _relative(photograph: Path, root: Path) -> str:
    name = os.path.relpath(os.path.realpath(photograph), os.path.realpath(root))
    if name.startswith(".."):
        raise DatasetError(
            f"{photograph} is outside of {root}: give the folder of all photographs as --images"
        )
    return name.replace(os.sep, "/")


def _size(photograph: Path) -> tuple[int, int]:
    """Width and height as they are seen; from the header only."""
    try:
        with Image.open(photograph) as image:
            return upright_size(image)
    except Exception as error:  # Pillow answers damaged data with nearly any exception
        raise DatasetError(
            f"{photograph} cannot be read ({error}): replace it, or remove it and its file"
        ) from error


def _image_entry(
    number: int, photograph: Path, root: Path, path: Path, data: dict[str, Any]
) -> dict[str, Any]:
    width, height = _size(photograph)
    for key, actual in (("imageWidth", width), ("imageHeight", height)):
        if data.get(key) not in (None, actual):
            raise DatasetError(
                f"{path} is of {data.get('imageWidth')}x{data.get('imageHeight')} pixels, "
                f"{photograph} has {width}x{height}: use the photograph that was labelled"
            )
    name = _relative(photograph, root)
    return {"id": number, "file_name": name, "width": width, "height": height}


def _unlabelled(root: Path, known: set[str], count: int) -> list[dict[str, Any]]:
    entries = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES):
        name = _relative(path, root)
        if name not in known:
            width, height = _size(path)
            count += 1
            entries.append({"id": count, "file_name": name, "width": width, "height": height})
    return entries


def _groups(
    path: Path, data: dict[str, Any], notes: _Notes
) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    """Label and shapes of each object: shapes of a group together, all others alone."""
    grouped: dict[Any, list[dict[str, Any]]] = {}
    for number, shape in enumerate(data["shapes"]):
        where = f"shape {number} of {path}"
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise DatasetError(f"{where} has no label: open it in labelme and fix it")
        kind = shape.get("shape_type") or "polygon"  # labelme before version 3.7 had only these
        if kind not in AREAS:
            notes.add("shapes are points or lines, without area", f"{where}, a {kind}")
            continue
        check_points(shape.get("points"), kind, where)
        group = shape.get("group_id")
        key = ("alone", number) if group is None else ("group", str(group))
        grouped.setdefault(key, []).append({**shape, "shape_type": kind, "where": where})
    for (_, group), shapes in grouped.items():
        labels = sorted({shape["label"] for shape in shapes})
        if len(labels) > 1:
            raise DatasetError(
                f"{path}: group {group} has the labels {', '.join(labels)}; a group is one object, "
                "so give its shapes one label"
            )
        yield labels[0], shapes
