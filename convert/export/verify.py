"""Proof that a pack is what it should be: one XNNPACK partition a stage, int8 close to float."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgemask.boxes import iou_matrix
from edgemask.instances import Instances
from edgemask.modelpack import ModelPack
from edgemask.pipeline import Pipeline
from edgemask.quant import dequantize
from edgemask.runtime import Stage

from ..arch.keras_stages import INPUTS, KerasStage
from ..arch.model import MaskRCNN
from .quantize import QuantizationError, Watch, check_zero_points, unwatched

MIN_SIGNAL = 12.0  # dB between a float output and its int8 error; healthy stages reach 18 to 35
MIN_MATCHED = 0.85  # share of confident detections found by both
MIN_MASK_IOU = 0.88  # mean over matched detections
MAX_KEYPOINT_SHIFT = 0.05  # mean over matched detections, in units of the root of the box's area
SURE = 0.5  # keypoints below it may lie anywhere


@dataclass
class Verification:
    """Outcome of :func:`verify`.

    Attributes
    ----------
    partitions : dict
        stage → {input size: (XNNPACK partitions, operators outside)}.
    signal : dict
        ``stage/tensor`` → signal to quantization noise in dB; the signal is the variance of
        the tensor, or that over all pyramid levels where it is larger.
    end_to_end : dict
        ``float``, ``int8`` (confident detections of each), ``matched`` (share of all of these that
        the other network has too), ``mask_iou`` (mean over the matched) and, if there are sure
        keypoints, ``keypoint_shift`` (see `MAX_KEYPOINT_SHIFT`).
    failures : list of str
        Empty for a pack that passes.
    """

    partitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    signal: dict[str, float] = field(default_factory=dict)
    end_to_end: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def check_partitions(pack: ModelPack, result: Verification) -> dict[str, Stage]:
    """Each stage must be one delegate partition at every input size it will meet."""
    short, stride = pack.input["short_side"], pack.input["stride"]
    wide = round(short * 4 / 3 / stride) * stride
    stages = {}
    for name, content in pack.stages.items():
        stage = stages[name] = Stage(content, pack.stage_spec(name), threads=1, name=name)
        if name == "backbone":
            sizes = [(1, short, wide, 3), (1, wide, short, 3), (1, short, short, 3)]
        else:
            tail = tuple(pack.stage_spec(name)["inputs"]["rois"]["shape"][1:])
            sizes = [(n, *tail) for n in (1, 7, 50)]
        result.partitions[name] = {}
        for shape in sizes:
            stage.resize({INPUTS[name]: shape})
            outside = stage.operators_outside
            label = "x".join(map(str, shape))
            result.partitions[name][label] = (stage.delegated, outside)
            if stage.delegated != 1 or outside:
                result.failures.append(
                    f"{name} at {label}: {stage.delegated} XNNPACK partitions, outside: "
                    f"{', '.join(outside) or 'nothing'}; it must be 1 with nothing outside"
                )
    try:
        check_zero_points(dict(pack.manifest), dict(pack.stage_spec("backbone")))
    except QuantizationError as error:
        result.failures.append(str(error))
    return stages


class _Compared(KerasStage):
    """Runs int8 and float on the same input, records the agreement, returns the int8 result."""

    def __init__(self, model, name: str, stage: Stage, powers: dict[str, list[tuple]]):
        super().__init__(model, name)
        self.name, self.stage, self.powers = name, stage, powers

    def run(self, **arrays):
        given = arrays[self._input]
        outputs = {k: v.copy() for k, v in self.stage.run(**arrays).items()}
        exact = super().run(
            **{self._input: dequantize(given, *self.stage.quantization(self._input))}
        )
        for key, reference in exact.items():
            approximation = dequantize(outputs[key], *self.stage.quantization(key))
            error = reference - approximation
            self.powers.setdefault(f"{self.name}/{key}", []).append(
                (reference.size, float(reference.sum()), float((reference**2).sum()),
                 float((error**2).sum()))
            )  # fmt: skip
        return outputs

    def quantization(self, name: str):
        return self.stage.quantization(name)


def _check_parent(pack: ModelPack, model: MaskRCNN) -> None:
    """Refuse a checkpoint that the pack cannot have been made of."""
    for name, spec in pack.manifest["stages"].items():
        stage = model.stages.get(name)
        own = sorted(tensor.shape[-1] for tensor in stage.outputs) if stage is not None else []
        wanted = sorted(tensor["shape"][-1] for tensor in spec["outputs"].values())
        if own != wanted:
            raise ValueError(
                f"the float checkpoint is of a different network than the pack {pack.name}: "
                f"channels of its {name} are {own}, in the pack {wanted}"
            )


def compare_tensors(
    pack: ModelPack, model: MaskRCNN, stages: dict[str, Stage],
    images: Iterable[np.ndarray], result: Verification,
) -> None:  # fmt: skip
    """Every stage output, int8 against float on the same int8 input."""
    powers: dict[str, list[tuple]] = {}
    _check_parent(pack, model)
    compared = {
        name: _Compared(model.stages[name], name, stage, powers) for name, stage in stages.items()
    }
    pipeline = Pipeline(pack.manifest, compared)
    for rgb in images:
        pipeline(rgb, score_threshold=0.05, max_detections=20)
    sums = {name: np.sum(np.array(rows, np.float64), axis=0) for name, rows in powers.items()}
    kinds: dict[str, Any] = {}
    for name, row in sums.items():
        kinds[_kind(name)] = kinds.get(_kind(name), 0) + row
    for name, row in sums.items():
        # Levels are mixed later. One that is quiet, because no object has its size, has no signal
        # of its own, but its error must still be small beside the signal of the others.
        signal = max(_variance(row), _variance(kinds[_kind(name)]), 1e-12)
        decibel = float(10 * np.log10(signal / max(row[3] / row[0], 1e-12)))
        result.signal[name] = round(decibel, 1)
        if decibel < MIN_SIGNAL:
            result.failures.append(
                f"{name}: {decibel:.1f} dB above its int8 error, it must be {MIN_SIGNAL:g} or more"
            )


def _kind(name: str) -> str:
    """The tensor's name without its pyramid level: ``rpn_logits_3`` → ``rpn_logits``."""
    return name.rstrip("0123456789").rstrip("_")


def _variance(row: np.ndarray) -> float:
    count, total, squares, _ = row
    return float(squares / count - (total / count) ** 2)


def compare_end_to_end(
    pack: ModelPack, model: MaskRCNN, stages: dict[str, Stage],
    images: Iterable[np.ndarray], result: Verification, score: float = 0.5,
) -> None:  # fmt: skip
    """Detections of the int8 pack against the float network's, image by image.

    A detection counts as matched when the other network has one of its class with
    box IoU ≥ 0.7. To keep borderline scores out, each confident detection (score ≥
    ``score``) is looked up among the other's with half that score.
    """
    exact = Pipeline(pack.manifest, {name: KerasStage(m, name) for name, m in model.stages.items()})
    quick = Pipeline(pack.manifest, stages)
    totals = {"float": 0, "int8": 0}
    looked, matched, overlaps, shifts = 0, 0, [], []
    for looked, rgb in enumerate(images, 1):  # noqa: B007
        both = {"float": exact(rgb, score / 2), "int8": quick(rgb, score / 2)}
        for own, other in (("float", "int8"), ("int8", "float")):
            mine, theirs = both[own][both[own].scores >= score], both[other]
            totals[own] += len(mine)
            if not len(mine) or not len(theirs):
                continue
            same = mine.class_ids[:, None] == theirs.class_ids
            iou = iou_matrix(mine.boxes, theirs.boxes) * same
            best = iou.argmax(axis=1)
            hit = iou.max(axis=1) >= 0.7
            matched += int(hit.sum())
            a, b = mine[hit].masks.to_dense(), theirs[best[hit]].masks.to_dense()
            union = (a | b).sum(axis=(1, 2))
            overlaps += list((a & b).sum(axis=(1, 2)) / np.maximum(union, 1))
            shifts += keypoint_shifts(mine[hit], theirs[best[hit]])
    count = totals["float"] + totals["int8"]
    share = matched / count if count else 0.0
    mean = float(np.mean(overlaps)) if overlaps else 0.0
    result.end_to_end = {**totals, "matched": round(share, 4), "mask_iou": round(mean, 4)}
    if shifts:
        shift = float(np.mean(shifts))
        result.end_to_end["keypoint_shift"] = round(shift, 4)
        if shift > MAX_KEYPOINT_SHIFT:
            result.failures.append(
                f"end to end: sure keypoints of int8 and float are {shift:.3f} of the box's size "
                f"apart; it must be at most {MAX_KEYPOINT_SHIFT}"
            )
    if not count:
        result.failures.append(f"neither network finds anything in the {looked} images given")
    elif share < MIN_MATCHED or mean < MIN_MASK_IOU:
        result.failures.append(
            f"end to end: {share:.0%} of the detections agree with mean mask IoU {mean:.3f}; "
            f"it must be {MIN_MATCHED:.0%} and {MIN_MASK_IOU}"
        )


def keypoint_shifts(mine: Instances, theirs: Instances) -> list[float]:
    """How far the sure keypoints of detections are from their partners', relative to the box."""
    if mine.keypoints is None or theirs.keypoints is None:
        return []
    sides = mine.boxes[:, 2:] - mine.boxes[:, :2]
    size = np.sqrt(np.maximum(sides.prod(axis=1), 1))[:, None]
    apart = np.linalg.norm(mine.keypoints[..., :2] - theirs.keypoints[..., :2], axis=2) / size
    found: list[float] = apart[mine.keypoints[..., 2] >= SURE].tolist()
    return found


def verify(
    pack: ModelPack, model: MaskRCNN | None, images: Sequence[np.ndarray], watch: Watch = unwatched
) -> Verification:
    """Run all checks.

    Parameters
    ----------
    pack : ModelPack
    model : MaskRCNN or None
        The float parent; None checks the partitions only.
    images : sequence of uint8 RGB arrays
        Photographs with objects of the pack's classes.
    watch : callable
        Goes around every loop over them, as tqdm does.
    """
    result = Verification()
    stages = check_partitions(pack, result)
    if model is not None:
        compare_tensors(pack, model, stages, watch(images, "comparing tensors"), result)
        compare_end_to_end(pack, model, stages, watch(images, "comparing detections"), result)
    return result
