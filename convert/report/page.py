"""The sections of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemask.evaluate import KEYPOINT_METRICS, METRICS, evaluate
from edgemask.modelpack import ModelPack

from . import statistics as stats
from .document import Block, Document, Section, Table, Text, Tiles
from .matching import Matches, match
from .sections import alarms, calibration, curves, errors, share, sheet, threshold

__all__ = ["Measured", "build"]

SHOWN = [name for name in METRICS if name != "AR1"]
KINDS = {"bbox": "box", "segm": "mask", "keypoints": "keypoints"}


@dataclass
class Measured:
    """What the page is about.

    Attributes
    ----------
    pack : ModelPack
    truth : dict
        COCO annotations.
    images : Path
    class_ids : list of int
        Classes of the pack that the annotations know.
    int8, parent : list of COCO results
        Of the pack and of its float parent, which may be None.
    short_side : int
        Of the network's input.
    """

    pack: ModelPack
    truth: dict[str, Any]
    images: Path
    class_ids: list[int]
    int8: Sequence[Mapping[str, Any]]
    parent: Sequence[Mapping[str, Any]] | None
    short_side: int

    @property
    def models(self) -> dict[str, Sequence[Mapping[str, Any]]]:
        """Predictions by the name of the arithmetic."""
        return {"int8": self.int8} | ({} if self.parent is None else {"float": self.parent})


def build(measured: Measured, stages: Table, macs: float, pictures: int = 4) -> Document:
    """Put the page together.

    Parameters
    ----------
    measured : Measured
    stages : Table
        What :func:`.stages.stage_table` returned.
    macs : float
        Multiply-accumulates of one frame.
    pictures : int
        Photographs of each of the best, typical and worst; 0 leaves the photographs out.
    """
    kinds = ["bbox", "segm"]
    if any("keypoints" in r for r in measured.int8):
        kinds.append("keypoints")
    table = {
        name: evaluate(results, measured.truth, kinds, measured.class_ids)
        for name, results in measured.models.items()
    }
    masks = {n: match(r, measured.truth, measured.class_ids) for n, r in measured.models.items()}
    boxes = match(measured.int8, measured.truth, measured.class_ids, "bbox")
    curve = stats.score_curve(masks["int8"])
    best = curve.best()
    sections = [
        _summary(measured, table, masks["int8"], curve, macs),
        _accuracy(measured, table, kinds, masks["int8"]),
        curves(masks, boxes),
        threshold(curve),
        calibration(masks["int8"]),
        alarms(measured.truth, masks["int8"], best),
        errors(masks["int8"], best),
        Section("Stages", [
            Text("Multiply-accumulates of one frame of 4:3 with as many regions as the rows say. "
                 "A stage should be one XNNPACK partition with no operator outside."),
            stages,
        ]),
    ]  # fmt: skip
    if pictures:
        sections.append(sheet(measured.truth, measured.images, masks["int8"], best, pictures))
    pack = measured.pack
    subtitle = (
        f"Model pack {pack.name} {pack.version}, sha256 {pack.sha256[:16]}…, "
        f"{len(measured.truth['images'])} images, short side {measured.short_side}"
    )
    return Document(f"{pack.name}: report", subtitle, [s for s in sections if s.blocks])


def _summary(
    measured: Measured,
    table: Mapping[str, Any],
    matches: Matches,
    curve: stats.ScoreCurve,
    macs: float,
) -> Section:
    best = curve.best()
    segm = table["int8"]["segm"]
    tiles = [
        (share(segm["AP"]), "mask AP, int8"),
        (share(segm["AP50"]), "mask AP at IoU .5"),
        (share(table["int8"]["bbox"]["AP"]), "box AP, int8"),
    ]
    if "float" in table and segm["AP"] is not None:
        drop = table["float"]["segm"]["AP"] - segm["AP"]
        tiles.append((f"{drop:+.4f}", "mask AP lost by int8"))
    size = sum(len(content) for content in measured.pack.stages.values())
    tiles += [
        (f"{best:.2f}", "score of the best F1"),
        (f"{macs / 1e6:.0f} M", "multiply-accumulates a frame"),
        (f"{size / 1e6:.1f} MB", "of networks"),
    ]
    precision, recall, _ = curve.at(0.5)
    objects = int(matches.countable.sum())
    text = (
        f"{objects} objects with masks. At the usual score of 0.5 the model finds "
        f"{recall:.0%} of them"
    )
    text += f", and {precision:.0%} of what it finds is right" if np.isfinite(precision) else ""
    return Section("In short", [Tiles(tiles), Text(f"{text} (mask IoU of at least .5).")])


def _accuracy(
    measured: Measured, table: Mapping[str, Any], kinds: list[str], matches: Matches
) -> Section:
    blocks: list[Block] = []
    rows = []
    for kind in kinds[:2]:
        rows += [
            [f"{KINDS[kind]}, {name}", *(share(table[name][kind][m]) for m in SHOWN)]
            for name in table
        ]
    blocks.append(Table(["", *SHOWN], rows))
    counts = [f"{n} {name}" for name, (_, n) in stats.missed_by_size(matches, 2.0).items()]
    blocks.append(
        Text(f"COCO average precision through edgemask's own pipeline, of {', '.join(counts)} "
             "objects with masks (small: below 32² pixels, large: 96² and above).")
    )  # fmt: skip
    if "keypoints" in kinds:
        rows = [
            [f"keypoints, {name}", *(share(table[name]["keypoints"][m]) for m in KEYPOINT_METRICS)]
            for name in table
        ]
        blocks.append(Table(["", *KEYPOINT_METRICS], rows))
    if len(measured.class_ids) > 1:
        blocks.append(_per_class(measured, matches))
    return Section("Average precision", blocks)


def _per_class(measured: Measured, matches: Matches) -> Table:
    names = {c["id"]: c["name"] for c in measured.truth["categories"]}
    rows = []
    for class_id in measured.class_ids:
        count = int((matches.countable & (matches.truth_category == class_id)).sum())
        values = []
        for results in measured.models.values():
            one = evaluate(results, measured.truth, category_ids=[class_id])
            values += [one["segm"]["AP"], one["segm"]["AP50"], one["bbox"]["AP"]]
        rows.append((values[0], [names[class_id], str(count), *(share(v) for v in values)]))
    rows.sort(key=lambda row: -1 if row[0] is None else row[0], reverse=True)
    columns = [
        f"{what}, {name}" for name in measured.models for what in ("mask AP", "mask AP50", "box AP")
    ]
    return Table(["class", "objects", *columns], [row for _, row in rows])
