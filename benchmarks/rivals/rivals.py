"""Time edgemask and its rivals in one alternating run, from image array to full-resolution masks.

    benchmarks/rivals/run.sh                  makes the environment, exports the networks, runs this
    python benchmarks/rivals/rivals.py FOLDER --rounds 15 --json rivals.json

Needs OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1, which run.sh sets: libraries read them when they
are loaded. In each round every contestant gets the same picture once, in an order drawn anew, on
one thread. Times are process CPU; a ratio is taken within a round, so what disturbs a round
disturbs both.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from pictures import crowd  # noqa: E402

OURS = "edgemask people"
PEOPLE = 5
PACKAGES = (
    "ai-edge-litert", "numpy", "opencv-python-headless", "onnxruntime", "ncnn", "torch",
    "torchvision", "ultralytics",
)  # fmt: skip
Contestant = Callable[[Any], Any]


def edgemask(pack: str) -> Contestant:
    """A pack of this project."""
    from edgemask import Segmenter

    segmenter = Segmenter(pack, threads=1)

    def run(rgb: Any) -> Any:
        found = segmenter(rgb)
        return found.boxes, found.scores, found.masks.to_dense()

    return run


def torchvision(short_side: int) -> Contestant:
    """torchvision's Mask R-CNN R50-FPN, random weights, made to keep five detections."""
    import torch
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.set_num_threads(1)
    model = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=short_side, box_score_thresh=0.0,
        box_detections_per_img=PEOPLE,
    ).eval()  # fmt: skip

    def run(rgb: Any) -> Any:
        with torch.inference_mode():
            planes = torch.from_numpy(rgb.transpose(2, 0, 1).copy()).float().div_(255)
            found = model([planes])[0]
            masks = (found["masks"][:, 0] >= 0.5).numpy()
            return found["boxes"].numpy(), found["scores"].numpy(), masks

    return run


def contestants(folder: Path, packs: list[str]) -> dict[str, tuple[Contestant, int]]:
    """Return name → (function, take part in every so many rounds)."""
    import cv2
    import yolo

    cv2.setNumThreads(1)
    entries: dict[str, tuple[Contestant, int]] = {}
    for pack in packs:
        entries[f"edgemask {Path(pack).stem}"] = (edgemask(pack), 1)
    for size in (320, 640):
        for label, make in (
            ("int8 LiteRT", yolo.litert), ("ONNX Runtime", yolo.onnxruntime), ("ncnn", yolo.ncnn),
        ):  # fmt: skip
            entries[f"yolo11n-seg {label} {size}"] = (make(folder, size), 1)
    for side in (320, 800):
        entries[f"Mask R-CNN R50-FPN torchvision {side}"] = (torchvision(side), 5)
    return entries


def summary(values: list[float]) -> dict[str, float]:
    """Return the median and the range of the middle eighty per cent."""
    low, high = np.percentile(values, [10, 90])
    return {
        "p50": round(statistics.median(values), 3),
        "p10": round(float(low), 3),
        "p90": round(float(high), 3),
        "rounds": len(values),
    }


def main() -> None:
    """Run all rounds; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="what export.py has written")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--packs", nargs="+", default=["people"], help="the first is the measure")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rgb = np.asarray(crowd(640, 480, PEOPLE))
    entries = contestants(options.folder, options.packs)
    ours = next(iter(entries))
    found = {}
    for name, (run, _) in entries.items():
        boxes, _, masks = run(rgb)  # also the warm-up
        assert masks.shape[1:] == rgb.shape[:2], name
        found[name] = len(boxes)
    times: dict[str, dict[int, float]] = {name: {} for name in entries}
    order = random.Random(0)
    for number in range(options.rounds):
        names = [name for name, (_, every) in entries.items() if number % every == 0]
        order.shuffle(names)
        for name in names:
            start = time.process_time()
            entries[name][0](rgb)
            times[name][number] = (time.process_time() - start) * 1e3
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    rows = {}
    for name, own in times.items():
        ratios = [own[number] / times[ours][number] for number in own]
        rows[name] = {
            "found": found[name],
            "cpu_ms": summary(list(own.values())),
            f"over_{ours.replace(' ', '_')}": summary(ratios),
        }
    print(f"{'':42s}{'CPU ms':>10s}{'ratio':>8s}  (p10 to p90)")
    for name, row in rows.items():
        ratio = row[f"over_{ours.replace(' ', '_')}"]
        print(
            f"{name:42s}{row['cpu_ms']['p50']:10.1f}{ratio['p50']:8.2f}  "
            f"({ratio['p10']:.2f} to {ratio['p90']:.2f})"
        )
    if options.json:
        record = {
            "picture": f"640x480, {PEOPLE} people, 1 thread, process CPU",
            "machine": platform.machine(),
            "python": platform.python_version(),
            "load_average": round(os.getloadavg()[0], 1),
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
            "measure": ours,
            "contestants": rows,
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
