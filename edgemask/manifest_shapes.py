"""Whether the tensors of a pack have the shapes that the rest of its manifest implies.

A pack that contradicts itself would run, and find nothing or fail in the middle of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgemask.keypoints import NAMES

__all__ = ["shape_problem"]

Shape = tuple[int | None, ...]


def shape_problem(manifest: Mapping[str, Any]) -> str | None:
    """Return the first tensor whose shape contradicts the manifest, or None.

    Parameters
    ----------
    manifest : dict
        With all sections, stages and tensors that it needs.
    """
    for stage, side, tensor, expected, why in _expectations(manifest):
        given = manifest["stages"][stage][side][tensor]["shape"]
        if not _fits(given, expected):
            wanted = ", ".join("*" if n is None else str(n) for n in expected)
            return f"stages.{stage}.{side}.{tensor} has shape {given}, but {why} needs [{wanted}]"
    return None


def _fits(given: Sequence[int | None], expected: Shape) -> bool:
    """Whether a shape is the expected one; None is any length, in both."""
    return len(given) == len(expected) and all(
        a is None or b is None or a == b for a, b in zip(given, expected, strict=True)
    )


def _expectations(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Shape, str]]:
    rpn, roi, classes = manifest["rpn"], manifest["roi"], len(manifest["classes"])
    anchors = len(rpn["anchor_boxes"] if "anchor_boxes" in rpn else rpn["anchor_ratios"])
    for level in rpn["levels"]:
        for kind, columns in (("logits", anchors), ("deltas", 4 * anchors)):
            expected = (1, None, None, columns)
            yield "backbone", "outputs", f"rpn_{kind}_{level}", expected, f"{anchors} anchors"
    spec = manifest["detections"]
    scores = classes + (spec.get("activation") == "softmax")  # and the background
    boxes = 4 if spec.get("class_agnostic", True) else 4 * classes
    yield "box_head", "outputs", "logits", (None, scores), f"a list of {classes} classes"
    yield "box_head", "outputs", "deltas", (None, boxes), f"a list of {classes} classes"
    mask = manifest["mask"]
    columns = 1 if mask["class_agnostic"] else classes
    masks = (None, mask["size"], mask["size"], columns)
    yield "mask_head", "outputs", "logits", masks, "the section mask"
    heads = ["box", "mask"]
    if "keypoint" in manifest:
        heads.append("keypoint")
        size = manifest["keypoint"]["size"]
        heatmaps = (None, size, size, len(NAMES))
        yield "keypoint_head", "outputs", "logits", heatmaps, "the section keypoint"
    for head in heads:
        side = roi[head]["output_size"]
        yield f"{head}_head", "inputs", "rois", (None, side, side, None), f"roi.{head}.output_size"
