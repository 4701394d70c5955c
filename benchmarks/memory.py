"""Measure the peak memory of ``edgemask predict``, and fail if it is above its bound.

    python benchmarks/memory.py
    python benchmarks/memory.py --json memory.json --out pictures

Each case is a process of its own, with all four output formats, on a photograph tiled from the
bundled astronaut. Peak memory is the resident set size that the kernel reports when the process
ends (wait4), so it counts everything: Python, the runtime, decoding, drawing, writing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
MB = 1e6


class Case(NamedTuple):
    """One photograph: its size, how many astronauts are on it, and the bound in MB."""

    name: str
    width: int
    height: int
    columns: int
    rows: int
    bound: float


CASES = (
    Case("640x480, 1 person", 640, 480, 1, 1, 150),
    Case("640x480, 20 people", 640, 480, 5, 4, 150),
    Case("12 megapixels, 1 person", 4000, 3000, 1, 1, 250),
    Case("12 megapixels, 20 people", 4000, 3000, 5, 4, 250),
)


def peak(arguments: list[str]) -> float:
    """Run this Python with some arguments and return the peak resident set size in MB.

    A child starts with the peak of the process it was split off from, so nothing large may be
    loaded in this one: pictures are drawn by another child, and NumPy is never imported.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with status {child.returncode}")
    return usage.ru_maxrss * 1024 / MB  # Linux counts in kilobytes


def draw(path: Path, case: Case) -> None:
    """Write the photograph of a case as JPEG."""
    from PIL import Image

    picture = Image.new("RGB", (case.width, case.height))
    with Image.open(ROOT / "edgemask" / "assets" / "astronaut.jpg") as source:
        tile = source.resize((case.width // case.columns, case.height // case.rows))
    for row in range(case.rows):
        for column in range(case.columns):
            picture.paste(tile, (column * tile.width, row * tile.height))
    picture.save(path, quality=92)


def measure(case: Case, folder: Path, model: str) -> dict[str, Any]:
    """Return the figures of one case."""
    photograph = folder / f"{case.width}x{case.height}-{case.columns * case.rows}.jpg"
    peak([__file__, "--draw", str(CASES.index(case)), "--out", str(photograph)])
    arguments = ["-m", "edgemask", "predict", str(photograph), "--out", str(folder), "--model"]
    megabytes = peak([*arguments, model, "--format", "overlay,json,coco,masks"])
    record = json.loads(photograph.with_suffix(".json").read_text("utf-8"))
    return {
        "case": case.name,
        "instances": len(record["instances"]),
        "peak_mb": round(megabytes, 1),
        "bound_mb": case.bound,
    }


def main() -> int:
    """Measure every case and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="people", help="bundled name or path of a pack")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON too")
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep photographs and results")
    parser.add_argument("--draw", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.draw is not None:
        draw(options.out, CASES[options.draw])
        return 0
    steps = {"python": "pass", "numpy": "import numpy", "edgemask": "import edgemask.segmenter"}
    steps["segmenter"] = f"from edgemask import Segmenter; Segmenter({options.model!r})"
    floors = {name: round(peak(["-c", code]), 1) for name, code in steps.items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [measure(case, folder, options.model) for case in CASES]

    cpus = len(os.sched_getaffinity(0))
    print(f"Python {platform.python_version()}, {platform.machine()}, {cpus} CPUs; MB resident")
    print("before an image: " + ", ".join(f"{name} {value:.0f}" for name, value in floors.items()))
    print()
    print(f"{'case':26s}{'instances':>10s}{'peak':>8s}{'bound':>8s}")
    for row in rows:
        verdict = "" if row["peak_mb"] <= row["bound_mb"] else "  ABOVE THE BOUND"
        print(f"{row['case']:26s}{row['instances']:>10d}{row['peak_mb']:>8.0f}"
              f"{row['bound_mb']:>8.0f}{verdict}")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps({"before": floors, "cases": rows}, indent=1) + "\n")
    return int(any(row["peak_mb"] > row["bound_mb"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
