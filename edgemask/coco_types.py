"""What pycocotools needs of annotations and results to compare boxes, masks or keypoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgemask import rle
from edgemask.errors import InputError, SourceError
from edgemask.keypoints import NAMES

__all__ = [
    "IOU_TYPES",
    "KEYPOINT_METRICS",
    "METRICS",
    "check_entries",
    "check_images",
    "check_rle",
    "has_outline",
    "results_for",
    "truth_for",
    "usable_outline",
]

METRICS = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()  # noqa: SIM905
"""The order of pycocotools' ``stats``: APs, APm, APl are for small, medium and large instances."""
KEYPOINT_METRICS = "AP AP50 AP75 APm APl AR AR50 AR75 ARm ARl".split()  # noqa: SIM905
"""The same for keypoints, which COCO does not label on small persons."""

_FIELDS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
IOU_TYPES = tuple(_FIELDS)
_FAR = 1e5  # from pixel 0; pycocotools walks outlines pixel by pixel, and crashes farther away
_REQUIRED = {
    "images": ("id",),
    "annotations": ("image_id", "category_id"),
    "categories": ("id",),
}


def check_entries(data: Mapping[str, Any], name: str) -> None:
    """Refuse COCO annotations of which an entry lacks a field, or whose ids are ambiguous.

    Ambiguous: two images have one id, or ids are of several types, which pycocotools cannot sort.

    Raises
    ------
    SourceError
        Naming the file, the entry and the field.
    """
    for kind, fields in _REQUIRED.items():
        for number, entry in enumerate(data[kind]):
            missing = [field for field in fields if field not in entry]
            if missing:
                raise SourceError(f"{name}: {kind}[{number}] has no {missing[0]!r}: fix the file")
    for number, category in enumerate(data["categories"]):
        if not isinstance(category["id"], int):
            raise SourceError(
                f"{name}: categories[{number}] has id {category['id']!r}: give a whole number"
            )
    counts = Counter(image["id"] for image in data["images"])
    kinds = sorted({type(image_id).__name__ for image_id in counts})
    if len(kinds) > 1:
        raise SourceError(f"{name}: the ids of images are {' and '.join(kinds)}: use one kind")
    for image_id, count in counts.items():
        if count > 1:
            raise SourceError(f"{name}: {count} images have the id {image_id}: give each its own")


def check_images(images: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> None:
    """Refuse images that lack a field which only some uses of annotations need, or have none of it.

    ``height`` and ``width`` are whole numbers from 1, ``file_name`` is a text.

    Raises
    ------
    SourceError
        Naming the image and the field.
    """
    for image in images:
        for field in fields:
            if field not in image:
                raise SourceError(
                    f"image {image['id']} of the annotations has no {field!r}: fix the file"
                )
            value = image[field]
            named = field == "file_name"
            right = (
                isinstance(value, str) and bool(value)
                if named
                else isinstance(value, int) and not isinstance(value, bool) and value > 0
            )
            if not right:
                wanted = "a text" if named else "a whole number from 1"
                raise SourceError(
                    f"image {image['id']} of the annotations has {field} {value!r}: give {wanted}"
                )


def check_rle(entry: Mapping[str, Any], size: tuple[int, int]) -> None:
    """Refuse a segmentation in RLE that is not of its image: pycocotools would read on.

    Parameters
    ----------
    entry : mapping
        An annotation.
    size : (int, int)
        Height and width of its image.

    Raises
    ------
    SourceError
        Naming the annotation.
    """
    given = entry.get("segmentation")
    if not isinstance(given, dict) or not {"size", "counts"} <= given.keys():
        return
    counts, where = given["counts"], f"annotation {entry.get('id')}: its RLE has"
    if given["size"] not in (list(size), tuple(size)):
        raise SourceError(
            f"{where} size {given['size']}, its image [{size[0]}, {size[1]}] (H, W): use the "
            "annotations of these images, not of resized ones"
        )
    if not isinstance(counts, list | str | bytes):
        raise SourceError(f"{where} counts {counts!r}: give a text or a list of numbers")
    if not _fills(counts, *size):
        raise SourceError(
            f"{where} counts that are not the image's {size[0] * size[1]} pixels: fix it"
        )


def _fills(counts: list[Any] | str | bytes, height: int, width: int) -> bool:
    """Whether the counts of an RLE are those of a mask of this size."""
    if isinstance(counts, list):
        right = all(isinstance(n, int) and n >= 0 for n in counts)
        return right and sum(counts) == height * width
    try:
        rle.run_lengths(counts, height, width)
    except InputError:
        return False
    return True


def has_outline(segmentation: Any) -> bool:
    """Return whether a COCO segmentation is a mask: an RLE, or a polygon of three corners."""
    return bool(usable_outline(segmentation))


def usable_outline(segmentation: Any) -> Any:
    """Return the RLE, or the polygons of three corners or more: pycocotools fails on others."""
    if isinstance(segmentation, dict):
        return segmentation
    given = segmentation if isinstance(segmentation, list | tuple) else []
    return [p for p in given if isinstance(p, list | tuple) and len(p) >= 6]


def truth_for(annotations: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return COCO annotations for one IoU type, with the ids 1, 2, ….

    An annotation without a mask becomes an ignore region for masks. One without keypoints gets
    none that are labelled, which pycocotools ignores: a detection there is no mistake. The ids of
    the file are not kept: to pycocotools an object with the id 0 is never found, and of those that
    share an id there is only one.

    Raises
    ------
    SourceError
        Keypoints that are not a list of 17 times x, y, visibility; a segmentation that is no RLE
        and no list of polygons; a box that is none, where the box is needed.
    """
    prepare = {"bbox": _with_box, "segm": _with_mask, "keypoints": _with_keypoints}[kind]
    for entry in annotations:
        _check_numbers(entry, "area", [entry.get("area", 0)], "a number of pixels", _FAR * _FAR)
        if entry.get("iscrowd", 0) not in (0, 1):
            raise SourceError(
                f"annotation {entry.get('id')} has iscrowd {entry['iscrowd']}: give 0 or 1"
            )
    return [{**prepare(entry), "id": number} for number, entry in enumerate(annotations, 1)]


def _check_numbers(
    entry: Mapping[str, Any], field: str, values: Sequence[Any], wanted: str, most: float = _FAR
) -> None:
    """Refuse what pycocotools would stumble over."""
    if not all(isinstance(v, int | float) and abs(v) <= most for v in values):
        raise SourceError(
            f"annotation {entry.get('id')} has {field} {str(entry.get(field))[:40]}: give {wanted}"
        )


def _with_box(entry: dict[str, Any]) -> dict[str, Any]:
    box = entry.get("bbox")
    if not isinstance(box, list | tuple) or len(box) != 4:
        raise SourceError(
            f"annotation {entry.get('id')} has bbox {str(box)[:40]}: give x, y, width, height"
        )
    _check_numbers(entry, "bbox", box, "x, y, width, height in pixels")
    return entry


def _with_mask(entry: dict[str, Any]) -> dict[str, Any]:
    given = entry.get("segmentation") or []
    outline = usable_outline(given)
    if isinstance(outline, dict):
        if not {"size", "counts"} <= outline.keys():
            raise SourceError(
                f"annotation {entry.get('id')} has the RLE {str(outline)[:40]}: it needs size and "
                "counts"
            )
    else:
        wanted = "polygons as flat lists of x and y in pixels"
        for polygon in outline:
            _check_numbers(entry, "segmentation", polygon, wanted)
    if outline:
        return {**entry, "segmentation": outline}
    if not isinstance(given, list | tuple) or not all(isinstance(p, list | tuple) for p in given):
        raise SourceError(
            f"annotation {entry.get('id')} has segmentation {str(given)[:40]}: give a list of "
            "polygons"
        )
    x, y, w, h = _with_box(entry)["bbox"]
    box = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return {**entry, "segmentation": box, "iscrowd": 1}


def _with_keypoints(entry: dict[str, Any]) -> dict[str, Any]:
    points = _with_box(entry).get("keypoints") or [0] * (3 * len(NAMES))
    if not isinstance(points, list) or len(points) != 3 * len(NAMES):
        raise SourceError(
            f"annotation {entry.get('id')} has keypoints {str(points)[:40]}: give a list of "
            f"{len(NAMES)} times x, y, visibility, in COCO's order"
        )
    _check_numbers(entry, "keypoints", points, "numbers")
    labelled = sum(v > 0 for v in points[2::3])
    return {**entry, "keypoints": points, "num_keypoints": labelled}


def results_for(results: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return COCO results for one IoU type.

    Only that type's own field is kept: a detection's area, and so its size class, is computed
    from it. For keypoints, results of classes that have none are left out, and ``keypoint_score``,
    where there is one, is the score: a person that is surely there may have a doubtful pose.

    Raises
    ------
    InputError
        A result lacks the field; for keypoints, all do.
    """
    field = _FIELDS[kind]
    others = set(_FIELDS.values()) - {field}
    entries = [{key: value for key, value in r.items() if key not in others} for r in results]
    having = [entry for entry in entries if field in entry]
    if kind == "keypoints":
        having = [
            {**entry, "score": entry.get("keypoint_score", entry["score"])} for entry in having
        ]
    if len(having) < len(entries) and (kind != "keypoints" or not having):
        missing = next(n for n, entry in enumerate(entries) if field not in entry)
        raise InputError(f"prediction {missing} has no {field}: leave out iou type {kind!r}")
    return having
