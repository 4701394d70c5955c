"""Frames a second of a stream on one core and on two.

    python benchmarks/stream.py --seconds 20 --json benchmarks/results/stream.json

Each frame is a JPEG that is decoded, segmented, drawn on and encoded again, by the threads that
`edgemask serve` uses. The two are measured in turn, each in a process of its own that may use so
many cores. Two streams at once, each in a process and on a core of its own, show what the machine
allows: two threads of one core are not two cores. Says something on an idle machine only, and needs
Linux.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from pictures import crowd
from PIL import Image

from edgemask.live.engine import Engine
from edgemask.modelpack import load_pack
from edgemask.segmenter import Segmenter
from edgemask.serve.publisher import jpeg
from edgemask.sources.base import Frame, Source

WARM_UP = 2.0


class Jpegs(Source):
    """The same picture of 640x480 with five people, decoded again for every frame."""

    def __init__(self) -> None:
        super().__init__("jpegs")
        file = io.BytesIO()
        Image.fromarray(np.asarray(crowd())).save(file, "JPEG", quality=90)
        self._data = file.getvalue()
        self._count = 0

    def read(self, timeout: float = 5.0) -> Frame | None:
        """Decode; the frames do not end."""
        if self.closed:
            return None
        rgb = np.array(Image.open(io.BytesIO(self._data)))
        self._count += 1
        return Frame(rgb, self._count - 1, None, time.time_ns(), f"jpeg-{self._count:06d}")

    def _release(self) -> None:
        """Nothing is held."""


def rate(first: int, cores: int, threads: int, parallel: int, seconds: float, model: str) -> float:
    """Frames a second of this process, which is bound to so many cores from `first` on.

    `parallel` frames are in work at the same time, each with so many threads.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[first : first + cores])
    pack = load_pack(model)
    segmenters = [Segmenter(pack, threads=threads) for _ in range(parallel)]
    engine = Engine(Jpegs, segmenters)
    with engine, engine.subscribe(8, jpeg) if parallel > 1 else engine.subscribe() as results:
        start, count = time.monotonic(), 0
        for result in results:
            if parallel == 1:
                jpeg(result.frame, result.instances)
            now = time.monotonic()
            if now - start < WARM_UP:
                begin = now
                continue
            count += 1
            if now - begin >= seconds:
                return count / (now - begin)
    raise RuntimeError("the stream ended early")


def measure(streams: list[tuple[int, int, int, int]], options: argparse.Namespace) -> float:
    """Frames a second of all streams (first core, cores, threads, parallel) together."""
    running = [
        subprocess.Popen(
            [sys.executable, __file__, "--child", *map(str, stream),
             "--seconds", str(options.seconds), "--model", options.model],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for stream in streams
    ]  # fmt: skip
    total = 0.0
    for process in running:
        out, err = process.communicate()
        if process.returncode:
            raise RuntimeError(err.strip() or f"a stream ended with {process.returncode}")
        total += float(out.split()[-1])
    return total


def main() -> None:
    """Alternate between the cases and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="people")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", type=int, nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(rate(*options.child, options.seconds, options.model))
        return
    cases = {
        "1 core": [(0, 1, 1, 1)],
        "2 cores, one frame at a time": [(0, 2, 1, 1)],
        "2 cores, one, 2 threads": [(0, 2, 2, 1)],
        "2 cores, two frames at a time": [(0, 2, 1, 2)],
        "two streams, 1 core each": [(0, 1, 1, 1), (1, 1, 1, 1)],
    }
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, streams in cases.items():
            rates[name].append(measure(streams, options))
    medians = {name: round(statistics.median(values), 2) for name, values in rates.items()}
    one = medians["1 core"]
    for name, value in medians.items():
        print(f"{name:30s}{value:8.1f} frames/s{value / one:7.2f} times")
    if options.json:
        record = {"load_average": round(os.getloadavg()[0], 1), "frames_per_s": medians,
                  "ratio": {n: round(v / one, 2) for n, v in medians.items()}}  # fmt: skip
        options.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
