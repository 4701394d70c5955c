"""The sections that look at single detections: curves, scores, alarms, errors, photographs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import statistics as stats
from .document import Beside, Block, Chart, Pictures, Section, Table, Text
from .matching import Matches
from .sheet import choose, pair
from .svg import Axis, Bar, Line, chart

__all__ = ["alarms", "calibration", "curves", "errors", "share", "sheet", "threshold"]

CALIBRATED_FROM = 0.1  # most detections below are noise that nobody uses
ALARM_SCORES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def share(value: float | None) -> str:
    """A number from 0 to 1 with three digits; a dash where there is none."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.3f}"


def curves(masks: Mapping[str, Matches], boxes: Matches) -> Section:
    """Precision over recall at two IoUs, of masks in each arithmetic and of boxes in int8."""
    blocks: list[Block] = []
    for iou in (0.5, 0.75):
        lines = []
        shown = [(f"mask, {name}", m, name == "float") for name, m in masks.items()]
        for n, (name, matches, dashed) in enumerate([*shown, ("box, int8", boxes, False)]):
            values = stats.precision_at_recall(matches, iou)
            mean = float(values.mean())  # NaN where there is no object
            values = np.where(values > 0, values, np.nan)
            colour = 1 if name.startswith("box") else min(n, 1) * 2
            lines.append(Line(f"{name} ({share(mean)})", stats.RECALLS, values, colour, dashed))
        svg = chart(
            Axis.shares("recall"), Axis.shares("precision"), lines,
            title=f"precision over recall at IoU {iou}",
        )  # fmt: skip
        blocks.append(Chart(svg, f"Precision and recall at IoU {iou:g}; in brackets the AP."))
    return Section("Precision and recall", blocks)


def threshold(curve: stats.ScoreCurve) -> Section:
    """Precision, recall and F1 by score, and the score to use."""
    if not len(curve.score):
        return Section("Score threshold", [Text("Nothing was found.")])
    best = curve.best()
    grid = np.linspace(0.02, 0.98, 97)
    values = np.array([curve.at(score) for score in grid])
    lines = [
        Line("precision", grid, values[:, 0], 0),
        Line("recall", grid, values[:, 1], 1),
        Line("F1", grid, values[:, 2], 2, mark=(best, curve.at(best)[2], f"best F1 at {best:.2f}")),
    ]
    svg = chart(
        Axis.shares("score threshold"), Axis.shares("share"), lines,
        title="precision, recall and F1 over the score threshold",
    )  # fmt: skip
    scores = sorted({0.3, 0.4, 0.5, 0.6, 0.7, best})
    rows = [
        [f"{score:.2f}" + (" (best F1)" if score == best else ""),
         *(share(value) for value in curve.at(score))]
        for score in scores
    ]  # fmt: skip
    text = (
        f"F1 is best at a threshold of {best:.2f}: edgemask predict --score {best:.2f}. Take a "
        "higher one where a false alarm costs more than a miss."
    )
    table = Table(["score from", "precision", "recall", "F1"], rows)
    shown = Chart(svg, "Masks, IoU of at least .5, all classes together.")
    return Section("Score threshold", [Beside(shown, [Text(text), table])])


def calibration(matches: Matches) -> Section:
    """The reliability diagram."""
    result = stats.calibration(matches, least=CALIBRATED_FROM)
    title = "Calibration of the scores"
    if not result.count.sum():
        return Section(title, [Text(f"Nothing has a score of {CALIBRATED_FROM} or more.")])
    bins = len(result.count)
    bars = [
        Bar(n / bins, (n + 1) / bins, float(result.precision[n]), str(count) if count else "",
            f"score {n / bins:.1f} to {(n + 1) / bins:.1f}: {count} detections, "
            f"{result.precision[n]:.0%} right")
        for n, count in enumerate(result.count.tolist()) if count
    ]  # fmt: skip
    svg = chart(
        Axis.shares("score"), Axis.shares("share that is right"),
        [Line("perfectly calibrated", (0, 1), (0, 1), 4, True)], bars, "reliability diagram",
    )  # fmt: skip
    used = result.count > 0
    gaps = (result.precision - result.score)[used] * result.count[used]
    bias = float(gaps.sum() / result.count.sum())
    tendency = "too low" if bias > 0 else "too high"
    text = (
        f"Expected calibration error {result.error:.3f}: the mean gap between score and share of "
        f"right detections (mask IoU of at least .5), over {int(result.count.sum())} detections "
        f"with a score from {CALIBRATED_FROM}. Overall, scores are {abs(bias):.3f} {tendency}."
    )
    caption = "Share of right detections by score; their number is above the bars."
    return Section(title, [Beside(Chart(svg, caption), [Text(text)])])


def alarms(truth: Mapping[str, Any], matches: Matches, best: float) -> Section:
    """Detections where nothing is, by score."""
    images = stats.empty_images(truth, matches.class_ids)
    title = "False alarms"
    if not images:
        text = "No image is labelled as being without objects, so false alarms cannot be counted."
        return Section(title, [Text(text)])
    grid = np.linspace(0.05, 0.95, 91)
    total, affected = stats.false_alarms(matches, images, grid)
    lines = [
        Line("alarms per image", grid, total / len(images), 1),
        Line("images with an alarm", grid, affected / len(images), 0),
    ]
    highest = max(total.max() / len(images), 0.1)
    svg = chart(
        Axis.shares("score threshold"), Axis.counts("per image without objects", highest), lines,
        title="false alarms over the score threshold",
    )  # fmt: skip
    scores = np.array(sorted({*ALARM_SCORES, best}))
    rows = [
        [f"{score:.2f}", str(n), str(where), f"{where / len(images):.0%}"]
        for score, n, where in zip(
            scores, *stats.false_alarms(matches, images, scores), strict=True
        )
    ]
    table = Table(["score from", "false alarms", "images with one", "share of images"], rows)
    caption = f"{len(images)} images that show no object of the model's classes."
    return Section(title, [Beside(Chart(svg, caption), [table])])


def errors(matches: Matches, score: float) -> Section:
    """What wrong detections are, and the objects that nothing found, from a score on."""
    counts = stats.error_types(matches, score)
    total = sum(counts.values())
    if len(matches.class_ids) == 1:
        counts = {name: n for name, n in counts.items() if name not in ("class", "both")}
    meaning = {"right": "mask IoU of at least .5 with an object of its class"} | stats.ERRORS
    rows = [
        [f"{name}: {meaning[name]}", str(n), f"{n / total:.0%}" if total else "–"]
        for name, n in counts.items()
    ]
    missed = stats.missed_by_size(matches, score)
    objects = [
        [name, str(all_), str(n), f"{n / all_:.0%}" if all_ else "–"]
        for name, (n, all_) in missed.items()
    ]
    return Section(
        "What goes wrong",
        [
            Text(f"At the score threshold of the best F1 ({score:.2f})."),
            Table(["detections", "number", "share"], rows),
            Table(["objects by size", "labelled", "missed", "share"], objects),
        ],
    )


def sheet(
    truth: Mapping[str, Any], images: Path, matches: Matches, score: float, count: int
) -> Section:
    """Photographs with what was found and what is labelled."""
    quality = stats.image_quality(matches, score)
    names = {c["id"]: c["name"] for c in truth["categories"]}
    infos = {info["id"]: info for info in truth["images"]}
    blocks: list[Block] = [
        Text(f"Left: found with a score of {score:.2f} or more. Right: labelled. Green: found "
             "and right; red: wrong; orange: missed; blue: not counted (crowds, masks that "
             "nobody drew). The number is the panoptic quality: F1 times the mean IoU.")
    ]  # fmt: skip
    for title, ids in choose(quality, count).items():
        shown = [pair(infos[i], images, matches, score, names, quality[i][0]) for i in ids]
        if shown:
            blocks.append(Pictures(title.capitalize(), shown))
    return Section("Photographs", blocks)
