"""Time edgemask's NumPy kernels against straightforward versions of the same algorithms.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --only nms,paste --json kernels.json

Times are medians of process CPU time in milliseconds, one BLAS thread. The straightforward
versions are what one writes first, loops over boxes, bins and pixels (plain.py), or Pillow's own;
each case checks that both give the same result before it is timed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy loads its BLAS

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pictures import crowd
from PIL import Image
from plain import plain_nms, plain_paste, plain_rle, plain_roi_align, plain_top_k

from edgemask.boxes import clip
from edgemask.geometry import InputSize, resize
from edgemask.masks import paste
from edgemask.nms import batched_nms, nms
from edgemask.quant import top_k
from edgemask.rle import encode_crop
from edgemask.roi_align import assign_levels, roi_align
from edgemask.shrink import Shrinker

Array = np.ndarray[Any, Any]

HEIGHT, WIDTH = 320, 416  # of the network's input, for a 4:3 camera
STRIDES = {2: 4, 3: 8, 4: 16, 5: 32}


class Case(NamedTuple):
    """One row of the table: two functions without arguments, and how to compare their results."""

    name: str
    fast: Callable[[], Any]
    plain: Callable[[], Any]
    same: Callable[[Any, Any], bool]


def random_boxes(rng: np.random.Generator, count: int) -> Array:
    """Boxes of 20 to 300 pixels and aspect ratios of 0.4 to 2.5, clipped to the image."""
    side = np.exp(rng.uniform(math.log(20), math.log(300), count))
    root = np.sqrt(np.exp(rng.uniform(math.log(0.4), math.log(2.5), count)))
    centre = rng.uniform(0, 1, (count, 2)) * [WIDTH, HEIGHT]
    half = np.stack([side / root, side * root], axis=1) / 2
    return clip(np.concatenate([centre - half, centre + half], axis=1), HEIGHT, WIDTH)


def roi_cases(rng: np.random.Generator, channels: int) -> Iterator[Case]:
    """The box head's and the mask head's input."""
    pyramid = {
        level: rng.integers(
            -128, 128, (math.ceil(HEIGHT / stride), math.ceil(WIDTH / stride), channels)
        ).astype(np.int8)
        for level, stride in STRIDES.items()
    }
    for count, size, names, thresholds in (
        (50, 7, (3, 4, 5), (112, 224)),
        (50, 14, (2, 3, 4), (64, 224)),
        (5, 14, (2, 3, 4), (64, 224)),
    ):
        boxes = random_boxes(rng, count)
        ids = assign_levels(boxes, thresholds)
        levels, strides = [pyramid[name] for name in names], [STRIDES[name] for name in names]
        arguments = (levels, boxes, ids, strides, size, 2)
        yield Case(
            f"roi_align {count} boxes, {size}x{size}x{channels}, 2x2 samples",
            partial(roi_align, *arguments),
            partial(plain_roi_align, *arguments),
            lambda a, b: bool(np.abs(a - b).max() < 5e-3),  # of 255 steps
        )
        yield Case(
            f"roi_align {count} boxes, {size}x{size}x{channels}, exact, over not exact",
            partial(roi_align, *arguments, exact=True),
            partial(roi_align, *arguments),
            lambda a, b: bool(np.abs(a - b).mean() < 1),  # noise: neighbours differ by 85 steps
        )


def resize_cases() -> Iterator[Case]:
    """Camera frames to the network's input; the plain version is one call of Pillow's filter."""
    for width, height in ((640, 480), (1280, 960), (1920, 1440), (2592, 1944), (4000, 3000)):
        rgb = np.asarray(crowd(width, height))
        size = InputSize((height, width), (HEIGHT, WIDTH))

        def plain(rgb: Array = rgb) -> Array:
            picture = Image.fromarray(rgb)
            return np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))

        def similar(a: Array, b: Array) -> bool:
            return float(np.abs(a.astype(np.int16) - b).mean()) < 3  # of 255 levels

        name = f"resize {width}x{height} to {WIDTH}x{HEIGHT}"
        averaged, bilinear = Shrinker(), Shrinker(averaged=False)
        if averaged.codes(rgb, size) is None:  # so large that Pillow does it
            yield Case(name, partial(resize, rgb, size), plain, similar)
            continue
        yield Case(name, partial(averaged, rgb, size), plain, similar)
        yield Case(f"{name}, bilinear", partial(bilinear, rgb, size), plain, similar)


def nms_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Proposals and detections."""
    for count in (200, 500, 1000):
        boxes = np.round(random_boxes(rng, count))
        scores = rng.random(count).astype(np.float32)
        classes = rng.integers(0, 4, count)
        for limit, note in ((None, ""), (50, ", the best 50")):
            yield Case(
                f"nms {count} boxes{note}",
                partial(nms, boxes, scores, 0.7, limit),
                partial(plain_nms, boxes, scores, 0.7, limit),
                lambda a, b: a.tolist() == b,
            )
        yield Case(
            f"batched_nms {count} boxes, 4 classes",
            partial(batched_nms, boxes, scores, classes, 0.7),
            partial(plain_nms, boxes, scores, 0.7, None, classes),
            lambda a, b: a.tolist() == b,
        )


def paste_cases(rng: np.random.Generator) -> Iterator[Case]:
    """Masks of standing persons in a 640x480 image, and their run lengths."""
    for count in (1, 5, 20):
        size = rng.uniform((60, 80), (260, 300), (count, 2))
        low = rng.uniform(0, 1, (count, 2)) * ((640, 480) - size)
        boxes = np.concatenate([low, low + size], axis=1).astype(np.float32)
        cells = rng.random((count, 28, 28)).astype(np.float32)
        yield Case(
            f"paste {count} 28x28 into 640x480",
            partial(paste, cells, boxes, 480, 640),
            partial(plain_paste, cells, boxes, 480, 640),
            # Doubles and floats may disagree about a pixel at the threshold.
            lambda a, b: int((a.to_dense() != b).sum()) <= 2,
        )
    y, x = np.mgrid[:250, :180] + 0.5
    angle = np.arctan2(y - 125, x - 90)
    waves = 1 + 0.2 * np.sin(5 * angle + rng.uniform(0, 6)) + 0.1 * np.sin(11 * angle)
    crop = np.hypot((y - 125) / 1.4, x - 90) < 65 * waves
    yield Case(
        "encode_crop 250x180 in 640x480",
        partial(encode_crop, crop, 200, 100, 480, 640),
        partial(plain_rle, crop, 200, 100, 480, 640),
        lambda a, b: a == b,
    )


def topk_cases(rng: np.random.Generator) -> Iterator[Case]:
    """The RPN's logits."""
    shapes = [(math.ceil(HEIGHT / stride), math.ceil(WIDTH / stride)) for stride in (8, 16, 32, 64)]
    levels = [rng.integers(-128, 60, (*shape, 3)).astype(np.int8) for shape in shapes]
    params = [(0.1, 3), (0.09, -5), (0.1, 10), (0.12, 0)]
    total = sum(level.size for level in levels)
    yield Case(
        f"top_k 200 of {total} int8 logits",
        partial(top_k, levels, params, 200),
        partial(plain_top_k, levels, params, 200),
        lambda a, b: a[0].tolist() == b,
    )


def cpu_milliseconds(function: Callable[[], Any], budget: float) -> float:
    """Median process CPU time of one call; short calls are timed in batches of about 2 ms."""
    start = time.process_time()
    function()
    first = max(time.process_time() - start, 1e-6)
    batch = max(1, round(0.002 / first))
    repeats = min(max(int(budget / (first * batch)), 1), 51)
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(batch):
            function()
        times.append((time.process_time() - start) / batch)
    return statistics.median(times) * 1e3


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="example: python benchmarks/kernels.py --only roi_align --channels 96",
    )
    parser.add_argument("--channels", type=int, default=64, help="of the pyramid (default 64)")
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (default 0)")
    parser.add_argument("--only", default="", help="comma-separated beginnings of case names")
    parser.add_argument("--budget", type=float, default=1.0, help="CPU seconds per measurement")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args(argv)
    rng = np.random.default_rng(options.seed)
    wanted = tuple(options.only.split(","))
    cases = [*roi_cases(rng, options.channels), *nms_cases(rng), *paste_cases(rng)]
    cases += [*topk_cases(rng), *resize_cases()]
    print(f"{'':48} {'edgemask':>9} {'plain':>9} {'ratio':>7}")
    rows = []
    for case in cases:
        if not case.name.startswith(wanted):
            continue
        if not case.same(case.fast(), case.plain()):
            print(f"{case.name}: the results differ", file=sys.stderr)
            return 1
        fast = cpu_milliseconds(case.fast, options.budget)
        plain = cpu_milliseconds(case.plain, options.budget)
        print(f"{case.name:48} {fast:6.3f} ms {plain:6.1f} ms {plain / fast:6.1f}x", flush=True)
        rows.append({"case": case.name, "edgemask_ms": fast, "plain_ms": plain})
    if options.json:
        system = {"machine": platform.machine(), "numpy": np.__version__}
        options.json.write_text(json.dumps(system | {"rows": rows}, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
