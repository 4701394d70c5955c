"""The contact sheet: photographs with what was found beside what is there."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgemask import rle
from edgemask.images import load_image
from edgemask.instances import Instances
from edgemask.masks import CropMasks
from edgemask.overlay import draw

from ..data.rle import to_rle
from .document import Picture
from .matching import Matches

__all__ = ["choose", "pair"]

# Colours of edgemask.overlay.PALETTE, which draw() takes from the track id.
RIGHT, MISSED, IGNORED, WRONG = 0, 1, 6, 5
SIDE = 440  # longer side of one of the two pictures, pixels


def choose(quality: Mapping[int, tuple[float, int]], count: int) -> dict[str, list[int]]:
    """Ids of the best, the typical (around the median) and the worst images, each once.

    Among images of equal quality the one with more mistakes is the worse.
    """
    ranked = sorted(quality, key=lambda i: (-quality[i][0], quality[i][1], i))
    count = min(count, -(-len(ranked) // 3))
    best, rest = ranked[:count], ranked[count:]
    cut = max(len(rest) - count, 0)
    worst = rest[cut:]
    middle = max(0, min(len(ranked) // 2 - count // 2 - len(best), cut - count))
    typical = rest[:cut][middle : middle + count]
    return {"best": best, "typical": typical, "worst": worst[::-1]}


def pair(
    info: Mapping[str, Any],
    images: str | Path,
    matches: Matches,
    score: float,
    names: Mapping[int, str],
    quality: float,
) -> Picture:
    """Draw what was found from a score on (left) and what is labelled (right).

    Green is right, red is wrong; in the labels orange is what was missed. Blue does not count.
    """
    level = matches.level(0.5)
    rgb = load_image(Path(images) / info["file_name"])
    mine = np.flatnonzero((matches.image == info["id"]) & (matches.score >= score))
    theirs = np.flatnonzero(matches.truth_image == info["id"])
    hits = matches.found[level, mine]
    verdicts = np.where(hits >= 0, RIGHT, np.where(matches.ignored[level, mine], IGNORED, WRONG))
    states = np.where(np.isin(theirs, hits), RIGHT, MISSED)
    states[~matches.countable[theirs]] = IGNORED
    size = info["height"], info["width"]
    found = _instances([matches.results[n] for n in mine], verdicts, names, size)
    there = _instances([matches.annotations[n] for n in theirs], states, names, size)
    several = len(matches.class_ids) > 1
    panels = [draw(rgb, found, alpha=0.3), draw(rgb, there, alpha=0.3, labels=False)]
    right, wrong = int((hits >= 0).sum()), int((verdicts == WRONG).sum())
    missed = int((states == MISSED).sum())
    objects = ", ".join(_counted([names[c] for c in matches.truth_category[theirs]]))
    labelled = f" ({objects})" if several and objects else ""
    return Picture(
        _jpeg(panels),
        2 * size[1] / size[0],
        f"{info['file_name']}: found, and labelled",
        f"{quality:.2f} · {right} right, {wrong} wrong, {missed} missed{labelled} · "
        f"{info['file_name']}",
    )


def _counted(names: Sequence[str]) -> list[str]:
    return [f"{names.count(name)} {name}" for name in dict.fromkeys(names)]


def _instances(
    entries: Sequence[Mapping[str, Any]],
    colours: np.ndarray,
    names: Mapping[int, str],
    size: tuple[int, int],
) -> Instances:
    """COCO results or annotations as instances in the given colours."""
    if not entries:
        return Instances.empty(*size)
    crops, origins = [], []
    for entry in entries:
        mask = rle.decode(to_rle(entry["segmentation"], *size)["counts"], *size)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            crops.append(np.zeros((0, 0), bool))
            origins.append((0, 0))
            continue
        crops.append(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        origins.append((columns[0], rows[0]))
    boxes = np.array([entry["bbox"] for entry in entries], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    classes = [entry["category_id"] for entry in entries]
    return Instances(
        boxes, [entry.get("score", 1.0) for entry in entries], classes,
        CropMasks(crops, origins, *size), [names[c] for c in classes], track_ids=colours,
    )  # fmt: skip


def _jpeg(panels: Sequence[np.ndarray]) -> bytes:
    """Two pictures of the same size in one, side by side."""
    height, width = panels[0].shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    sheet = Image.new("RGB", (2 * size[0] + 6, size[1]), (255, 255, 255))
    for n, panel in enumerate(panels):
        small = Image.fromarray(panel).resize(size, Image.Resampling.LANCZOS)
        sheet.paste(small, (n * (size[0] + 6), 0))
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=82)
    return stream.getvalue()
