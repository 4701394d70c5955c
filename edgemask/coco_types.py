"""What pycocotools needs of annotations and results to compare boxes, masks or keypoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgemask.errors import InputError, SourceError
from edgemask.keypoints import NAMES

__all__ = ["IOU_TYPES", "KEYPOINT_METRICS", "METRICS", "results_for", "truth_for"]

METRICS = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()  # noqa: SIM905
"""The order of pycocotools' ``stats``: APs, APm, APl are for small, medium and large instances."""
KEYPOINT_METRICS = "AP AP50 AP75 APm APl AR AR50 AR75 ARm ARl".split()  # noqa: SIM905
"""The same for keypoints, which COCO does not label on small persons."""

_FIELDS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
IOU_TYPES = tuple(_FIELDS)


def truth_for(annotations: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return COCO annotations for one IoU type.

    An annotation without a mask becomes an ignore region for masks. One without keypoints gets
    none that are labelled, which pycocotools ignores: a detection there is no mistake.

    Raises
    ------
    SourceError
        Keypoints that are not a list of 17 times x, y, visibility.
    """
    if kind == "bbox":
        return list(annotations)
    return [_with_mask(a) if kind == "segm" else _with_keypoints(a) for a in annotations]


def _with_mask(entry: dict[str, Any]) -> dict[str, Any]:
    if entry.get("segmentation"):
        return entry
    x, y, w, h = entry["bbox"]
    box = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return {**entry, "segmentation": box, "iscrowd": 1}


def _with_keypoints(entry: dict[str, Any]) -> dict[str, Any]:
    points = entry.get("keypoints") or [0] * (3 * len(NAMES))
    if not isinstance(points, list) or len(points) != 3 * len(NAMES):
        raise SourceError(
            f"annotation {entry.get('id')} has keypoints {str(points)[:40]}: give a list of "
            f"{len(NAMES)} times x, y, visibility, in COCO's order"
        )
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
