"""The manifest of a model pack: ``model.json``, schema 1, and the rules it must satisfy.

The rules are data: a nested mapping of keys to predicates, walked once. Unknown extra keys are
allowed, so a newer minor version may add information that an older edgemask ignores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from edgemask.errors import ModelError
from edgemask.keypoints import NAMES

__all__ = ["MAX_MEMBER_BYTES", "SAFE_NAME", "SCHEMA", "parse_manifest"]

SCHEMA = 1
MAX_MEMBER_BYTES = 64 * 2**20
REQUIRED_STAGES = ("backbone", "box_head", "mask_head")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")

_CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # and halves of characters

Rule = Any  # a mapping of keys to rules, a one-element list of a rule, or a predicate


def _text(value: object) -> bool:
    return isinstance(value, str)


def _label(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 200 and not _CONTROL.search(value)


def _boolean(value: object) -> bool:
    return isinstance(value, bool)


def _number(low: float, high: float) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return low <= value <= high  # no NaN either

    check.__doc__ = f"a number from {low:g} to {high:g}"
    return check


def _integer(low: int, high: int) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    check.__doc__ = f"an integer from {low} to {high}"
    return check


def _one_of(*values: object) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        return type(value) in {type(v) for v in values} and value in values

    check.__doc__ = " or ".join(repr(v) for v in values)
    return check


def _optional(rule: Callable[[object], bool]) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        return value is None or rule(value)

    check.__doc__ = f"null or {rule.__doc__}"
    return check


def _file_name(value: object) -> bool:
    return isinstance(value, str) and bool(SAFE_NAME.match(value))


def _sha256(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{64}", value))


_text.__doc__ = "a string"
_label.__doc__ = "a string of at most 200 characters, none of them control characters"
_boolean.__doc__ = "true or false"
_file_name.__doc__ = "a plain file name"
_sha256.__doc__ = "64 lower-case hexadecimal digits"

_POSITIVE = _number(1e-6, 1e6)
_FRACTION = _number(0.0, 1.0)
_STRIDE = _integer(1, 256)
_TENSOR: Rule = {
    "tensor": _text,
    "shape": [_optional(_integer(1, 2**20))],
    "dtype": _one_of("int8", "float32"),
    "scale": _optional(_number(1e-12, 1e6)),
    "zero_point": _optional(_integer(-128, 127)),
}
_POOLER: Rule = {
    "output_size": _integer(1, 64),
    "sampling_ratio": _integer(1, 8),
    "features": [_text],
    "level_thresholds": [_POSITIVE],  # ascending
}
_MANIFEST: Rule = {
    "name": _file_name,
    "version": _text,
    "description": _text,
    "license": _text,
    "credits": [_text],
    "input": {
        "layout": _one_of("NHWC"),
        "color": _one_of("RGB"),
        "mean": _number(-1e4, 1e4),
        "std": _POSITIVE,
        "short_side": _integer(16, 4096),
        "max_aspect": _number(1.0, 100.0),
        "stride": _STRIDE,
    },
    "classes": [{"id": _integer(0, 2**31 - 1), "name": _label}],
    "rpn": {
        "levels": [_text],
        "strides": [_STRIDE],
        "box_weights": [_POSITIVE],
        "pre_nms": _integer(1, 100_000),
        "post_nms": _integer(1, 10_000),
        "nms_threshold": _FRACTION,
    },
    "roi": {"features": [_text], "strides": [_STRIDE], "box": _POOLER, "mask": _POOLER},
    "detections": {"box_weights": [_POSITIVE], "nms_threshold": _FRACTION},
    "mask": {
        "size": _integer(1, 512),
        "class_agnostic": _boolean,
        "threshold": _number(1e-6, 1.0),
        "rescore": _boolean,
    },
    "stages": {},
    "training": {},
    "metrics": {},
}
# One of the two, see anchors.anchors_of.
_PYRAMID_ANCHORS: Rule = {"rpn": {"anchor_sizes": [_POSITIVE], "anchor_ratios": [_POSITIVE]}}
_GIVEN_ANCHORS: Rule = {"rpn": {"anchor_boxes": [[_number(-1e5, 1e5)]]}}
# May be left out: one sigmoid per class, boxes that are the same for all classes.
_DETECTIONS: Mapping[str, Rule] = {
    "activation": _one_of("sigmoid", "softmax"),
    "class_agnostic": _boolean,
}
# May be left out: averaged. See edgemask.shrink.
_INPUT: Mapping[str, Rule] = {"resize": _one_of("averaged", "bilinear")}
# May be left out: 0. Below 1, of which no logit is.
_RPN: Mapping[str, Rule] = {"score_threshold": _number(0.0, 0.99)}
# May be left out: masks suppress nothing.
_MASK: Mapping[str, Rule] = {"soft_nms_threshold": _number(0.0, 0.99)}
# Only in a pack with the stage keypoint_head; its pooling is roi.keypoint.
_KEYPOINT: Rule = {
    "class_id": _integer(0, 2**31 - 1),
    "size": _integer(1, 512),
    "box_scale": _number(1.0, 4.0),
    "names": [_text],
    "skeleton": [[_integer(0, len(NAMES) - 1)]],
}
_STAGE: Rule = {
    "file": _file_name,
    "sha256": _sha256,
    "bytes": _integer(1, MAX_MEMBER_BYTES),
    "inputs": {},
    "outputs": {},
}


def parse_manifest(raw: bytes, where: str) -> dict[str, Any]:
    """Parse and check a manifest.

    Parameters
    ----------
    raw : bytes
        Content of ``model.json``.
    where : str
        Path of the pack, for the messages.

    Returns
    -------
    dict
        The manifest, every field of the schema present, of the right type and in range.

    Raises
    ------
    ModelError
        Not JSON, a newer schema, or a field that is missing, of the wrong type or inconsistent.
    """
    try:
        manifest = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{where}: model.json is not valid JSON ({error}): rebuild the pack"
        ) from error
    if not isinstance(manifest, dict):
        raise ModelError(f"{where}: model.json is not a JSON object: rebuild the pack")
    schema = manifest.get("schema")
    if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA:
        raise ModelError(
            f"{where} has schema {schema}, this edgemask knows schema {SCHEMA}: "
            "run pip install --upgrade edgemask"
        )
    if schema != SCHEMA or isinstance(schema, bool):
        raise ModelError(f"{where}: model.json has schema {schema!r}, not {SCHEMA}: rebuild it")
    problem = _first_problem(manifest, _MANIFEST, "") or _inconsistency(manifest)
    if problem:
        raise ModelError(f"{where}: model.json: {problem}; rebuild the pack")
    return manifest


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _first_problem(value: Any, rule: Rule, at: str) -> str | None:
    """Walk value and rule together; return the first violation, or None."""
    if isinstance(rule, Mapping):
        if not isinstance(value, dict):
            return f"{at or 'the top level'} must be an object, not {_shown(value)}"
        for key, inner in rule.items():
            path = f"{at}.{key}" if at else key
            if key not in value:
                return f"{path} is missing"
            problem = _first_problem(value[key], inner, path)
            if problem:
                return problem
        return None
    if isinstance(rule, list):
        if not isinstance(value, list) or len(value) > 1000:
            return f"{at} must be a list of at most 1000 entries, not {_shown(value)}"
        problems = (_first_problem(v, rule[0], f"{at}[{i}]") for i, v in enumerate(value))
        return next((problem for problem in problems if problem), None)
    return None if rule(value) else f"{at} must be {rule.__doc__}, not {_shown(value)}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _inconsistency(manifest: dict[str, Any]) -> str | None:
    """Return the first contradiction between fields that are valid one by one, or None."""
    ids = [entry["id"] for entry in manifest["classes"]]
    if not ids or len(set(ids)) != len(ids):
        return "classes must be a non-empty list with distinct ids"
    rpn, roi, stages = manifest["rpn"], manifest["roi"], manifest["stages"]
    problem = _anchor_problem(manifest)
    optionals = {"detections": _DETECTIONS, "input": _INPUT, "mask": _MASK, "rpn": _RPN}
    for section, optional in optionals.items():
        given = manifest[section]
        rule = {key: inner for key, inner in optional.items() if key in given}
        problem = problem or _first_problem(given, rule, section)
    if problem:
        return problem
    if manifest["input"]["short_side"] < manifest["input"]["stride"]:
        return "input.short_side must be input.stride or more"
    if len(rpn["box_weights"]) != 4 or len(manifest["detections"]["box_weights"]) != 4:
        return "box_weights must have four entries"
    if not roi["features"] or len(roi["features"]) != len(roi["strides"]):
        return "roi.features and roi.strides must have one entry per level"
    posed = "keypoint" in manifest or "keypoint_head" in stages
    problem = _keypoint_problem(manifest) if posed else None
    if problem:
        return problem
    for head in ("box", "mask", "keypoint") if posed else ("box", "mask"):
        pooler = roi[head]
        unknown = sorted(set(pooler["features"]) - set(roi["features"]))
        if unknown:
            return f"roi.{head}.features has {unknown[0]!r}, which is not in roi.features"
        if len(set(pooler["features"])) != len(pooler["features"]):
            return f"roi.{head}.features has a name twice"
        if pooler["level_thresholds"] != sorted(pooler["level_thresholds"]):
            return f"roi.{head}.level_thresholds must be in ascending order"
        if len(pooler["level_thresholds"]) != len(pooler["features"]) - 1:
            return f"roi.{head}.level_thresholds must have one entry fewer than its features"
    for name in (*REQUIRED_STAGES, "keypoint_head") if posed else REQUIRED_STAGES:
        if name not in stages:
            return f"stages.{name} is missing"
    for name, spec in stages.items():
        problem = _first_problem(spec, _STAGE, f"stages.{name}")
        for side in ("inputs", "outputs"):
            if not problem and not spec[side]:
                problem = f"stages.{name}.{side} is empty"
            for tensor, entry in spec.get(side, {}).items() if not problem else ():
                problem = problem or _tensor_problem(entry, f"stages.{name}.{side}.{tensor}")
        if problem:
            return problem
    levels = [f"rpn_{kind}_{level}" for kind in ("logits", "deltas") for level in rpn["levels"]]
    needed = {
        ("backbone", "inputs"): ["image"],
        ("backbone", "outputs"): [*roi["features"], *levels],
        ("box_head", "inputs"): ["rois"],
        ("box_head", "outputs"): ["logits", "deltas"],
        ("mask_head", "inputs"): ["rois"],
        ("mask_head", "outputs"): ["logits"],
    }
    if posed:
        needed["keypoint_head", "inputs"] = ["rois"]
        needed["keypoint_head", "outputs"] = ["logits"]
    for (stage, side), tensors in needed.items():
        for tensor in tensors:
            if tensor not in stages[stage][side]:
                return f"stages.{stage}.{side}.{tensor} is missing"
    return None


def _anchor_problem(manifest: dict[str, Any]) -> str | None:
    rpn = manifest["rpn"]
    given = "anchor_boxes" in rpn
    problem = _first_problem(manifest, _GIVEN_ANCHORS if given else _PYRAMID_ANCHORS, "")
    if problem:
        return problem
    levels = len(rpn["levels"])
    if given:
        if levels != 1 or len(rpn["strides"]) != 1:
            return "rpn.anchor_boxes needs exactly one level in rpn.levels and rpn.strides"
        boxes = rpn["anchor_boxes"]
        if not boxes or not all(len(b) == 4 and b[0] < b[2] and b[1] < b[3] for b in boxes):
            return "rpn.anchor_boxes must be a list of x0, y0, x1, y1 with x0 < x1 and y0 < y1"
        return None
    lengths = {levels, len(rpn["strides"]), len(rpn["anchor_sizes"])}
    if len(lengths) != 1 or 0 in lengths or not rpn["anchor_ratios"]:
        return "rpn.levels, rpn.strides and rpn.anchor_sizes must have one entry per level"
    return None


def _keypoint_problem(manifest: dict[str, Any]) -> str | None:
    problem = _first_problem(manifest, {"keypoint": _KEYPOINT, "roi": {"keypoint": _POOLER}}, "")
    if problem:
        return problem
    spec = manifest["keypoint"]
    # Skeletons, scores of an evaluation and every reader of the results rely on the order.
    if spec["names"] != list(NAMES):
        return f"keypoint.names must be COCO's {len(NAMES)} in their order, nose to right_ankle"
    if any(len(pair) != 2 for pair in spec["skeleton"]):
        return "keypoint.skeleton must be a list of pairs of indices"
    if spec["class_id"] not in {entry["id"] for entry in manifest["classes"]}:
        return f"keypoint.class_id {spec['class_id']} is not one of the classes"
    return None


def _tensor_problem(entry: Any, at: str) -> str | None:
    problem = _first_problem(entry, _TENSOR, at)
    if not problem and (entry["dtype"] == "int8") != (entry["scale"] is not None):
        problem = f"{at}: an int8 tensor needs a scale, a float32 tensor has null"
    return problem
