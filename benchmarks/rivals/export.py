"""Export yolo11n-seg for the three runtimes, each at two sizes, into a folder.

    python benchmarks/rivals/export.py FOLDER

The network is built from its description with random weights: they change neither its shape nor
its time. Runs in the environment that run.sh makes.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

SIZES = (320, 640)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def quantize(source: Path, target: Path, size: int) -> None:
    """Turn a float LiteRT file into int8: weights and activations, static, calibrated."""
    from ai_edge_quantizer import quantizer, recipe
    from pictures import crowd

    images = [np.asarray(crowd(size, size, people)) for people in (1, 5)]
    interpreter = __import__("ai_edge_litert.interpreter", fromlist=["Interpreter"])
    signatures = interpreter.Interpreter(str(source)).get_signature_list()
    (name, signature), *_ = signatures.items()
    details = interpreter.Interpreter(str(source)).get_input_details()[0]
    data = []
    for rgb in images:
        scaled = rgb.astype(np.float32)[None] / np.float32(255)
        if details["shape"][1] == 3:
            scaled = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
        data.append({signature["inputs"][0]: scaled})
    tool = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    calibration = tool.calibrate({name: data})
    tool.quantize(calibration).export_model(str(target), overwrite=True)


def main() -> None:
    """Export whatever is not there yet."""
    from ultralytics import YOLO

    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for size in SIZES:
        work = folder / f"work-{size}"
        work.mkdir(exist_ok=True)
        targets = {
            "onnx": folder / f"yolo11n-seg-{size}.onnx",
            "ncnn": folder / f"yolo11n-seg-{size}.ncnn",
            "litert": folder / f"yolo11n-seg-{size}.float.tflite",
        }
        for kind, target in targets.items():
            if target.exists():
                continue
            model = YOLO("yolo11n-seg.yaml", task="segment")
            made = Path(model.export(format=kind, imgsz=size, simplify=True, device="cpu"))
            if kind == "litert" and made.is_dir():
                (made,) = made.glob("*.tflite")
            shutil.move(made, target)
        int8 = folder / f"yolo11n-seg-{size}.int8.tflite"
        if not int8.exists():
            quantize(targets["litert"], int8, size)
        work.rmdir()
    print(*sorted(path.name for path in folder.iterdir()), sep="\n")


if __name__ == "__main__":
    main()
