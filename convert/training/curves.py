"""A picture of a training run: losses and accuracy over steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

_OTHER = ("time", "step", "total", "grad_norm")


def series(rows: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one figure, from the rows that have it."""
    found = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in found], [value for _, value in found]


def draw_curves(rows: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Draw the rows of a ``log.jsonl`` as PNG: losses above, AP on the dev set below.

    Parameters
    ----------
    rows : sequence of dict
        ``step``, and losses or figures whose name begins with ``dev_``.
    path : path
        File to write.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    losses = [name for name in names if name not in _OTHER and not name.startswith("dev_")]
    measured = [name for name in names if name.startswith("dev_")]
    # The object interface: pyplot would choose a window system, and keep every figure.
    figure = Figure(figsize=(9, 7 if measured else 4), layout="constrained")
    panels = figure.subplots(2 if measured else 1, 1, sharex=True, squeeze=False)[:, 0]
    for name in losses:
        panels[0].plot(*series(rows, name), label=name, linewidth=1)
    panels[0].plot(*series(rows, "total"), label="total", color="black", linewidth=1.6)
    panels[0].set(ylabel="loss (logarithmic)", yscale="log")
    # Losses span one decade or two: with powers of ten alone hardly a number would be seen.
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[0].yaxis.set_minor_formatter(NullFormatter())
    for name in measured:
        steps, values = series(rows, name)
        label = f"{name.removeprefix('dev_').replace('_', ' ')}, last {values[-1]:.3f}"
        panels[1].plot(steps, values, marker="o", markersize=4, label=label)
    if measured:
        best = max(max(series(rows, name)[1]) for name in measured)
        panels[1].set(ylabel="dev AP", ylim=(0, max(1.1 * best, 0.05)))
    for panel in panels:
        panel.grid(True, which="both", alpha=0.25)
        panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    panels[-1].set(xlabel="step")
    figure.savefig(path, dpi=110, format="png")
