"""Draw the committed results as pictures for the documentation.

pip install matplotlib
python benchmarks/draw.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "docs" / "images"
NETWORKS = {"backbone": "#1f5a96", "box_head": "#488dc8", "mask_head": "#8ebee2"}
OTHERS = {
    "resize": "#f7c548", "proposals": "#f08f3b", "roi_align": "#de5c40", "nms": "#b04060",
    "mask_roi_align": "#cc78a0", "paste": "#a0783c",
}  # fmt: skip
COLOURS = OTHERS | NETWORKS
plt.rcParams.update({"svg.hashsalt": "edgemask", "font.size": 9, "axes.spines.top": False,
                     "axes.spines.right": False, "svg.fonttype": "none"})  # fmt: skip


def read(name: str) -> dict[str, Any]:
    """Return a result."""
    record: dict[str, Any] = json.loads((HERE / name).read_text("utf-8"))
    return record


def save(figure: Any, name: str) -> None:
    """Write a figure, the same bytes for the same data."""
    figure.savefig(IMAGES / name, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    plt.close(figure)


def rivals() -> None:
    """Bars: how many times as long as ours each rival takes."""
    record = read("results/rivals.json")
    key = f"over_{record['measure'].replace(' ', '_')}"
    rows = sorted(record["contestants"].items(), key=lambda item: -item[1][key]["p50"])
    figure, axes = plt.subplots(figsize=(7.5, 0.32 * len(rows) + 0.8))
    for n, (name, row) in enumerate(rows):
        ratio = row[key]
        colour = "#1f5a96" if name.startswith("edgemask") else "#b8b8b8"
        span = [[ratio["p50"] - ratio["p10"]], [ratio["p90"] - ratio["p50"]]]
        axes.barh(n, ratio["p50"], color=colour, xerr=span, error_kw={"lw": 1, "capsize": 2})
        axes.text(ratio["p90"] * 1.08, n, f"{ratio['p50']:.2f}", va="center")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_xscale("log")
    axes.set_xlabel("CPU time of a frame over that of edgemask people (one thread, x86-64)")
    save(figure, "rivals.svg")


def stacked(axes: Any, labels: list[str], rows: list[dict[str, float]]) -> None:
    """Stacked bars of the steps of a frame, networks first."""
    base = [0.0] * len(rows)
    for name, colour in {**NETWORKS, **OTHERS}.items():
        heights = [row.get(name, 0.0) for row in rows]
        axes.bar(labels, heights, bottom=base, color=colour, label=name.replace("_", " "))
        base = [b + h for b, h in zip(base, heights, strict=True)]


def curves() -> None:
    """Five panels of stacked bars."""
    record = read("results/curves.json")
    figure, panels = plt.subplots(2, 3, figsize=(10, 6))
    titles = {"camera": "camera frame, pixels", "short side": "short side of the input, pixels"}
    for axes, (name, rows) in zip(panels.flat, record["curves"].items(), strict=False):
        stacked(axes, [row["x"] for row in rows], [row["stages"] for row in rows])
        axes.set_title(titles.get(name, name), fontsize=10)
        axes.tick_params(axis="x", rotation=35 if name == "camera" else 0)
    panels[0, 0].set_ylabel("CPU ms")
    panels[1, 0].set_ylabel("CPU ms")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    panels.flat[5].axis("off")
    panels.flat[5].legend(handles, labels, loc="center", frameon=False)
    figure.tight_layout()
    save(figure, "cost_curves.svg")


def instructions() -> None:
    """Instructions of a frame on three cores."""
    record = read("instructions.json")
    figure, axes = plt.subplots(figsize=(6, 3.2))
    steps = [
        {name: count / 1e6 for name, count in core["steps"].items()}
        for core in record["cores"].values()
    ]
    stacked(axes, list(record["cores"]), steps)
    axes.set_ylabel("million instructions per frame")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    save(figure, "instructions.svg")


if __name__ == "__main__":
    rivals()
    curves()
    instructions()
