"""How much of this machine's int8 arithmetic the three networks use.

    pip install '.[convert]'
    python benchmarks/limit.py --json benchmarks/results/limit.json

The yardstick is the best multiply-accumulate rate that the same runtime reaches, on one thread, on
one large int8 layer: a few 1x1 and 3x3 convolutions, made with TensorFlow. The networks and the
yardsticks are run in turn, and rates are of process CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from edgemask_convert.export.flatbuffer import count_macs

from edgemask.interpreter import load_runtime
from edgemask.modelpack import load_pack
from edgemask.runtime import Stage

SHAPES = {
    "backbone": ("image", (1, 320, 416, 3)),
    "box_head": ("rois", (50, None, None, None)),
    "mask_head": ("rois", (5, None, None, None)),
}
#: Side of the map, channels in, channels out, side of the kernel.
YARDSTICKS = ((32, 512, 512, 1), (64, 256, 256, 1), (24, 256, 256, 3), (48, 128, 128, 3))


def convolution(side: int, inputs: int, outputs: int, kernel: int) -> bytes:
    """Return an int8 TFLite file with one convolution."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.05, (kernel, kernel, inputs, outputs)).astype(np.float32)
    shape = (1, side, side, inputs)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def layer(x: Any) -> Any:
        return tf.nn.conv2d(x, weights, 1, "SAME")

    converter = tf.lite.TFLiteConverter.from_concrete_functions([layer.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [rng.uniform(-1, 1, shape).astype(np.float32)] for _ in range(2)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    content: bytes = converter.convert()
    return content


def main() -> int:
    """Measure and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--model", default="people")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    jobs: dict[str, tuple[Any, int]] = {}
    rng = np.random.default_rng(0)
    for side, inputs, outputs, kernel in YARDSTICKS:
        content = convolution(side, inputs, outputs, kernel)
        interpreter = load_runtime().interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
        detail = interpreter.get_input_details()[0]
        noise = rng.integers(-128, 128, detail["shape"], np.int8)
        interpreter.set_tensor(detail["index"], noise)
        name = f"{kernel}x{kernel} convolution, {side}x{side}x{inputs} to {outputs}"
        jobs[name] = (interpreter.invoke, count_macs(content, tuple(detail["shape"])))
    pack = load_pack(options.model)
    for name, (key, wanted) in SHAPES.items():
        spec = pack.stage_spec(name)
        declared = spec["inputs"][key]["shape"]
        shape = tuple(w or d for w, d in zip(wanted, declared, strict=True))
        stage = Stage(pack.stages[name], spec, 1, name=name)
        noise = rng.integers(-128, 128, shape, np.int8)
        macs = count_macs(pack.stages[name], shape)
        jobs[name] = (lambda s=stage, k=key, x=noise: s.run(**{k: x}), macs)
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(options.rounds + 2):
        for name, (run, _) in jobs.items():
            start = time.process_time()
            run()
            if number > 1:
                times[name].append(time.process_time() - start)
    rows = {
        name: {
            "mmac": round(macs / 1e6, 1),
            "cpu_ms": round(statistics.median(times[name]) * 1e3, 3),
            "gmac_per_s": round(macs / statistics.median(times[name]) / 1e9, 1),
        }
        for name, (_, macs) in jobs.items()
    }
    best = max(row["gmac_per_s"] for name, row in rows.items() if name not in SHAPES)
    macs = sum(rows[name]["mmac"] for name in SHAPES)
    milliseconds = sum(rows[name]["cpu_ms"] for name in SHAPES)
    together = {"mmac": macs, "cpu_ms": milliseconds, "gmac_per_s": round(macs / milliseconds, 1)}
    rows["the three networks"] = together
    for name, row in rows.items():
        share = row["gmac_per_s"] / best
        print(f"{name:44s}{row['mmac']:9.1f} MMAC{row['cpu_ms']:9.2f} ms"
              f"{row['gmac_per_s']:8.1f} GMAC/s{share:8.0%}")  # fmt: skip
    if options.json:
        record = {
            "machine": platform.machine(),
            "load_average": round(os.getloadavg()[0], 1),
            "runtime": f"{load_runtime().name} {load_runtime().version}",
            "best_gmac_per_s": best,
            "share_of_best": round(together["gmac_per_s"] / best, 3),
            "rows": rows,
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
