"""Small charts as SVG text: lines and bars in a frame with axes. Nothing but the standard library.

Colours are custom properties of the page (``var(--c0)`` …), so that a chart is readable on light
and dark ground.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "Bar", "Line", "chart"]

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 46


@dataclass(frozen=True)
class Axis:
    """One axis: its title, range, and the values that are marked."""

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    digits: int = 1

    @classmethod
    def shares(cls, title: str) -> Axis:
        """From 0 to 1 in fifths."""
        return cls(title, 0.0, 1.0, (0, 0.2, 0.4, 0.6, 0.8, 1))

    @classmethod
    def counts(cls, title: str, highest: float) -> Axis:
        """From 0 to a round number above the highest value, with about five marks."""
        raw = max(highest, 1e-9) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
        count = max(1, math.ceil(highest / step * 0.999))
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return cls(title, 0.0, count * step, [n * step for n in range(count + 1)], digits)


@dataclass(frozen=True)
class Line:
    """A line through points; ones that are not finite interrupt it.

    `colour` is the number of a colour of the page. `mark` is a point to be shown, with its text.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    dashed: bool = False
    mark: tuple[float, float, str] | None = None


@dataclass(frozen=True)
class Bar:
    """A bar from 0 to `y` between `x0` and `x1`; `text` stands above it, `hint` is its tooltip."""

    x0: float
    x1: float
    y: float
    text: str = ""
    hint: str = ""
    colour: int = 0


def chart(
    x: Axis, y: Axis, lines: Iterable[Line] = (), bars: Iterable[Bar] = (), title: str = ""
) -> str:
    """Draw lines and bars in one frame.

    Parameters
    ----------
    x, y : Axis
    lines, bars : iterables
    title : str
        For readers who cannot see the chart.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    lines, bars = list(lines), list(bars)
    named = [line for line in lines if line.name]
    height = HEIGHT + 18 * len(_rows(named))
    frame = _Frame(x, y)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}" '
        'xmlns="http://www.w3.org/2000/svg" font-family="inherit" font-size="12">',
        *_axes(frame),
        *(_bar(frame, bar) for bar in bars),
        *(_line(frame, line) for line in lines),
        *(_mark(frame, line) for line in lines if line.mark),
        *_legend(named),
        "</svg>",
    ]
    return "".join(parts)


class _Frame:
    """Data to pixels."""

    def __init__(self, x: Axis, y: Axis):
        self.x, self.y = x, y

    def column(self, value: float) -> float:
        share = (value - self.x.low) / (self.x.high - self.x.low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def row(self, value: float) -> float:
        share = (value - self.y.low) / (self.y.high - self.y.low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _axes(frame: _Frame) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in frame.y.ticks:
        row, label = frame.row(value), f"{value:.{frame.y.digits}f}"
        parts.append(f'<path d="M{LEFT} {row}H{right}" stroke="var(--grid)"/>')
        parts.append(_text(LEFT - 7, row + 4, label, "end", "var(--soft)"))
    for value in frame.x.ticks:
        column, label = frame.column(value), f"{value:.{frame.x.digits}f}"
        parts.append(f'<path d="M{column} {bottom}v4" stroke="var(--soft)"/>')
        parts.append(_text(column, bottom + 17, label, "middle", "var(--soft)"))
    middle = (TOP + bottom) / 2
    parts.append(f'<path d="M{LEFT} {bottom}H{right}" stroke="var(--soft)"/>')
    parts.append(_text((LEFT + right) / 2, bottom + 36, frame.x.title, "middle"))
    turned = f'transform="rotate(-90 14 {middle})"'
    parts.append(_text(14, middle, frame.y.title, "middle", extra=turned))
    return parts


def _line(frame: _Frame, line: Line) -> str:
    path, pen = [], "M"
    for a, b in zip(line.x, line.y, strict=True):
        if not (math.isfinite(a) and math.isfinite(b)):
            pen = "M"
            continue
        path.append(f"{pen}{frame.column(a)} {frame.row(b)}")
        pen = "L"
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    return (
        f'<path d="{"".join(path)}" fill="none" stroke="var(--c{line.colour})" stroke-width="2" '
        f'stroke-linejoin="round"{dash}><title>{escape(line.name)}</title></path>'
    )


def _mark(frame: _Frame, line: Line) -> str:
    x, y, text = line.mark or (0, 0, "")
    column, row = frame.column(x), frame.row(y)
    anchor, shift = ("start", 8) if column < (LEFT + WIDTH) / 2 else ("end", -8)
    up = -9 if row > TOP + 24 else 18
    dot = (
        f'<circle cx="{column}" cy="{row}" r="4.5" fill="var(--c{line.colour})" '
        'stroke="var(--page)" stroke-width="1.5"/>'
    )
    return dot + _text(column + shift, row + up, text, anchor, extra='font-weight="600" '
                       'paint-order="stroke" stroke="var(--page)" stroke-width="4"')  # fmt: skip


def _bar(frame: _Frame, bar: Bar) -> str:
    if not math.isfinite(bar.y):
        return ""
    left, right, top = frame.column(bar.x0), frame.column(bar.x1), frame.row(bar.y)
    bottom = frame.row(0)
    shape = (
        f'<rect x="{left + 1}" y="{top}" width="{max(right - left - 2, 1):.1f}" '
        f'height="{bottom - top:.1f}" fill="var(--c{bar.colour})" opacity=".75">'
        f"<title>{escape(bar.hint or bar.text)}</title></rect>"
    )
    return shape + _text((left + right) / 2, top - 4, bar.text, "middle", size=10)


def _rows(named: Sequence[Line]) -> list[list[Line]]:
    columns = 3 if all(len(line.name) < 12 for line in named) else 2
    return [list(named[n : n + columns]) for n in range(0, len(named), columns)]


def _legend(named: Sequence[Line]) -> list[str]:
    parts = []
    rows = _rows(named)
    for row, beside in enumerate(rows):
        for n, line in enumerate(beside):
            x = LEFT + n * (WIDTH - LEFT - RIGHT) // max(len(rows[0]), 2)
            y = HEIGHT + 6 + 18 * row
            dash = ' stroke-dasharray="5 4"' if line.dashed else ""
            parts.append(
                f'<path d="M{x} {y}h20" stroke="var(--c{line.colour})" stroke-width="2.5"{dash}/>'
            )
            parts.append(_text(x + 26, y + 4, line.name, "start"))
    return parts


def _text(
    x: float, y: float, text: str, anchor: str, fill: str = "var(--ink)", size: int = 0,
    extra: str = "",
) -> str:  # fmt: skip
    if not text:
        return ""
    small = f' font-size="{size}"' if size else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"{small} {extra}>'
        f"{escape(text)}</text>"
    )
