"""A picture of a record: one bar per run, divided into the steps of a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from edgemask.bench.table import LABELS

__all__ = ["draw"]

_WIDTH, _MARGIN, _BAR, _GAP, _LABEL = 960, 24, 30, 16, 250
_INK, _GREY, _PAPER = (34, 34, 34), (140, 140, 140), (255, 255, 255)
# Networks in blues, what NumPy and Pillow do in warm colours.
_COLOURS = {
    "resize": (247, 197, 72),
    "backbone": (31, 90, 150),
    "proposals": (240, 143, 59),
    "roi_align": (222, 92, 64),
    "box_head": (72, 141, 200),
    "nms": (176, 64, 96),
    "mask_roi_align": (204, 120, 160),
    "mask_head": (142, 190, 226),
    "paste": (160, 120, 60),
    "keypoint_roi_align": (190, 150, 190),
    "keypoint_head": (90, 170, 170),
    "keypoints": (120, 140, 70),
}


def draw(record: Mapping[str, Any]) -> Image.Image:
    """Return the chart of a record as an RGB picture, wall-clock medians in milliseconds.

    Parameters
    ----------
    record : mapping
        From :func:`edgemask.bench.record.make_record`, with one run or more.
    """
    runs = record["runs"]
    names = list(dict.fromkeys(stage["name"] for run in runs for stage in run["stages"]))
    font, small = _font(15), _font(13)
    top = _MARGIN + 54
    legend = top + len(runs) * (_BAR + _GAP) + 44
    height = legend + -(-len(names) // 4) * 24 + _MARGIN
    picture = Image.new("RGB", (_WIDTH, height), _PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((_MARGIN, _MARGIN), f"edgemask {record['edgemask']}: ms per frame", _INK, font)
    system = record["system"]
    pen.text((_MARGIN, _MARGIN + 22), f"{system['board']}, {system['os']}", _GREY, small)
    longest = max(sum(stage["wall_ms"]["p50"] for stage in run["stages"]) for run in runs)
    scale = (_WIDTH - _LABEL - 2 * _MARGIN - 70) / max(longest, 1e-6)
    _axis(pen, top, legend - 40, scale, longest, small)
    for n, run in enumerate(runs):
        _bar(pen, run, top + n * (_BAR + _GAP), scale, font)
    for n, name in enumerate(names):
        x, y = _MARGIN + n % 4 * 230, legend + n // 4 * 24
        pen.rectangle((x, y + 2, x + 14, y + 16), _COLOURS.get(name, _GREY))
        pen.text((x + 22, y), LABELS.get(name, name), _INK, small)
    return picture


def _bar(pen: Any, run: Mapping[str, Any], y: int, scale: float, font: Any) -> None:
    size, threads = run["input"], run["threads"]
    title = f"{run['pack']}, {size['width']}x{size['height']}, {threads} thread"
    pen.text((_MARGIN, y + 6), title + ("" if threads == 1 else "s"), _INK, font)
    x = float(_MARGIN + _LABEL)
    for stage in run["stages"]:
        end = x + stage["wall_ms"]["p50"] * scale
        if round(end) > round(x):
            colour = _COLOURS.get(stage["name"], _GREY)
            pen.rectangle((round(x), y, round(end) - 1, y + _BAR), colour)
        x = end
    pen.text((x + 8, y + 6), f"{run['wall_ms']['p50']:.1f}", _INK, font)


def _axis(pen: Any, top: int, bottom: int, scale: float, longest: float, font: Any) -> None:
    step = next(s for s in _steps() if longest / s <= 6)
    left = _MARGIN + _LABEL
    for n in range(int(longest / step) + 1):
        x = left + round(n * step * scale)
        pen.line((x, top - 6, x, bottom), (215, 215, 215) if n else _GREY)
        pen.text((x - 4, bottom + 4), f"{n * step:g}", _GREY, font)


def _steps() -> Sequence[float]:
    return [base * 10.0**power for power in range(-2, 7) for base in (1, 2, 5)]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size)
    # Before Pillow 10.1, or without FreeType, there is one bitmap font of about ten pixels.
    except (TypeError, ImportError, OSError):
        return ImageFont.load_default()
