"""How the time of a frame grows with what is in it: five curves, measured in one alternating run.

    python benchmarks/curves.py --json benchmarks/results/curves.json

Detections, proposals, size of the camera's frame, short side of the network's input, threads. Every
point is visited once a round, so a disturbance falls on all of them. Process CPU, medians; with
more than one thread that is the work of all of them, which shows what sharing the work costs.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy loads its BLAS

import argparse
import copy
import json
import platform
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pictures import crowd

from edgemask.bench.measure import Clocks, percentile
from edgemask.interpreter import default_threads
from edgemask.modelpack import ModelPack, load_pack
from edgemask.pipeline import Pipeline
from edgemask.runtime import Stage

DETECTIONS = (0, 1, 2, 5, 10, 20, 35, 50)
PROPOSALS = (10, 25, 50, 100, 200, 300)
CAMERAS = ((320, 240), (640, 480), (1280, 960), (1920, 1440), (2592, 1944), (4000, 3000))
SHORT_SIDES = (192, 256, 320, 416, 512, 640)


class Point(NamedTuple):
    """One point of a curve, and how to run its frame."""

    curve: str
    x: str
    manifest: dict[str, Any]
    rgb: Any
    threads: int
    options: dict[str, Any]


def points(pack: ModelPack) -> Iterator[Point]:
    """Yield the points of all curves."""
    plain: dict[str, Any] = dict(pack.manifest)
    vga = np.asarray(crowd())
    many = copy.deepcopy(plain)
    # Boxes may overlap as they like, so that there are as many as are asked for.
    many["rpn"].update(pre_nms=1000, post_nms=100, nms_threshold=0.95)
    many["detections"]["nms_threshold"] = 0.95
    for count in DETECTIONS:
        options = {"score_threshold": 0.0 if count else 1.0, "max_detections": max(count, 1)}
        yield Point("detections", str(count), many, vga, 1, options)
    for count in PROPOSALS:
        manifest = copy.deepcopy(plain)
        manifest["rpn"].update(pre_nms=4 * count, post_nms=count, nms_threshold=0.95)
        yield Point("proposals", str(count), manifest, vga, 1, {})
    for width, height in CAMERAS:
        yield Point("camera", f"{width}x{height}", plain, np.asarray(crowd(width, height)), 1, {})
    for side in SHORT_SIDES:
        yield Point("short side", str(side), plain, vga, 1, {"short_side": side})
    for threads in range(1, default_threads() + 1):
        yield Point("threads", str(threads), plain, vga, threads, {})


def main() -> int:
    """Run all rounds and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--model", default="people")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    pack = load_pack(options.model)
    stages = {
        threads: {
            name: Stage(content, pack.stage_spec(name), threads, name=name)
            for name, content in pack.stages.items()
        }
        for threads in range(1, default_threads() + 1)
    }
    plan = list(points(pack))
    laps: list[list[dict[str, float]]] = [[] for _ in plan]
    found = [0] * len(plan)
    for number in range(options.rounds + 1):  # the first warms up
        for n, point in enumerate(plan):
            clocks = Clocks()
            pipeline = Pipeline(point.manifest, stages[point.threads], clocks)
            pipeline(point.rgb, **point.options)  # lays out the memory for this size
            clocks.readings.clear()
            found[n] = len(pipeline(point.rgb, **point.options))
            names = [name for name in pipeline.timings if name != "total"]
            if number:
                laps[n].append({name: cpu for name, (_, cpu) in clocks.laps(names).items()})
        print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
    curves: dict[str, list[dict[str, Any]]] = {}
    for point, own, count in zip(plan, laps, found, strict=True):
        frames = [lap["frame"] for lap in own]
        stages_ms = {
            name: round(statistics.median(lap[name] for lap in own), 3)
            for name in own[0]
            if name != "frame"
        }
        row = {
            "x": point.x,
            "found": count,
            "cpu_ms": {f"p{p}": round(percentile(frames, p), 3) for p in (10, 50, 90)},
            "stages": stages_ms,
        }
        curves.setdefault(point.curve, []).append(row)
        print(f"{point.curve:12s}{point.x:>12s}{row['cpu_ms']['p50']:10.2f} ms")
    if options.json:
        record = {
            "model_sha256": pack.sha256,
            "frame": "640x480, 5 people, short side 320, 1 thread where nothing else is said",
            "machine": platform.machine(),
            "load_average": round(os.getloadavg()[0], 1),
            "rounds": options.rounds,
            "curves": curves,
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
