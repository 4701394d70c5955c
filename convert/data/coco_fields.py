"""The fields that a COCO file must have, and their types."""

from __future__ import annotations

from collections import Counter
from typing import Any

__all__ = ["MAX_COORDINATE", "DatasetError", "check_fields", "check_ids"]

MAX_COORDINATE = 1e9  # no image is as large, and float32 holds it

INTEGER, NUMBER, TEXT, LIST, ANY = "an integer", "a number", "text", "a list", "anything"
TYPES: dict[str, tuple[type, ...]] = {
    INTEGER: (int,), NUMBER: (int, float), TEXT: (str,), LIST: (list,),
}  # fmt: skip
REQUIRED = {
    "images": {"id": INTEGER, "file_name": TEXT, "height": NUMBER, "width": NUMBER},
    "annotations": {"id": INTEGER, "image_id": INTEGER, "category_id": INTEGER, "bbox": ANY},
    "categories": {"id": INTEGER, "name": TEXT},
}
# Lists, and of what.
OPTIONAL = {
    "images": {"labeled_cats": INTEGER}, "annotations": {}, "categories": {"keypoints": TEXT},
}  # fmt: skip


class DatasetError(ValueError):
    """The dataset cannot be used; the message names the file, image or annotation."""


def check_fields(data: Any, name: str) -> None:
    """Refuse what is not COCO before anything relies on it.

    Raises
    ------
    DatasetError
        Naming the first list, entry or field that is missing or of another type.
    """
    for key, required in REQUIRED.items():
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise DatasetError(f"{name} is not COCO: it has no list {key!r}")
        for n, item in enumerate(data[key]):
            for field, kind in required.items():
                if not isinstance(item, dict) or field not in item:
                    raise DatasetError(f"{name}: {key}[{n}] has no {field!r}")
                _check_type(item, field, kind, f"{name}: {key}[{n}]")
            for field, kind in OPTIONAL[key].items():
                if item.get(field) is not None:
                    _check_type(item, field, LIST, f"{name}: {key}[{n}]")
                    for entry in item[field]:
                        _check_type({field: entry}, field, kind, f"{name}: {key}[{n}]")


def check_ids(data: dict[str, Any], name: str) -> None:
    """Refuse two images, annotations or categories with one id.

    Raises
    ------
    DatasetError
        Naming the first id that is not alone.
    """
    for key in REQUIRED:
        counts = Counter(item["id"] for item in data[key])
        twice = [i for i, n in counts.items() if n > 1]
        if twice:
            raise DatasetError(f"{name}: {key} id {twice[0]} occurs {counts[twice[0]]} times")


def _check_type(item: dict[str, Any], field: str, kind: str, where: str) -> None:
    # A bool is an int to isinstance(), and no id to anybody.
    if kind != ANY and type(item[field]) not in TYPES[kind]:
        raise DatasetError(f"{where} has {field} {item[field]!r}, not {kind}")
