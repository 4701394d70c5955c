"""What the doctor tries in a process of its own: ``python -m edgemask.doctor.probe NAME``.

A runtime compiled for another processor ends the process by a signal, and libcamera can hang; the
doctor must survive both. The result is one JSON object on the last line of stdout.
"""

from __future__ import annotations

import importlib
import importlib.resources
import json
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["PROBES", "main"]


def probe_numpy() -> dict[str, Any]:
    """Load NumPy and say which one it is."""
    import numpy as np

    return {"version": np.__version__, "file": np.__file__}


def probe_runtime() -> dict[str, Any]:
    """Run the 1 kB network on the first runtime that works."""
    from edgemask.interpreter import load_runtime

    runtime = load_runtime()
    return {"name": runtime.name, "version": runtime.version, "int8": runtime.int8_delegate}


def probe_model() -> dict[str, Any]:
    """Load the bundled model, see what XNNPACK takes of it, and segment the bundled photograph."""
    from edgemask.images import load_image
    from edgemask.interpreter import default_threads
    from edgemask.live.memory import peak_rss_mb
    from edgemask.modelpack import load_pack
    from edgemask.runtime import Stage
    from edgemask.segmenter import Segmenter

    pack = load_pack("people")
    left = {}
    for name, content in pack.stages.items():
        stage = Stage(content, pack.stage_spec(name), 1, name=name)
        if stage.delegated != 1 or stage.operators_outside:
            left[name] = f"{stage.delegated} partitions, outside: {stage.operators_outside}"
        del stage
    photograph = importlib.resources.files("edgemask") / "assets" / "astronaut.jpg"
    with photograph.open("rb") as stream:
        rgb = load_image(stream)
    segmenter = Segmenter()
    segmenter(rgb)
    began = time.perf_counter()
    found = segmenter(rgb)
    return {
        "name": f"{pack.name} {pack.version}",
        "found": len(found),
        "milliseconds": (time.perf_counter() - began) * 1e3,
        "threads": default_threads(),
        "left_out": left,
        "peak_mb": peak_rss_mb(),
    }


def probe_camera() -> dict[str, Any]:
    """Import libcamera and picamera2 and list the cameras, without opening one."""
    # By name: these come from apt, for the system's own Python, and from nowhere else.
    importlib.import_module("libcamera")
    picamera2 = importlib.import_module("picamera2")
    cameras = picamera2.Picamera2.global_camera_info()
    return {"cameras": [str(camera.get("Model", "?")) for camera in cameras]}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "numpy": probe_numpy,
    "runtime": probe_runtime,
    "model": probe_model,
    "camera": probe_camera,
}


def main(name: str) -> int:
    """Run a probe and print its result, or the error that ended it, as JSON."""
    result: dict[str, Any]
    try:
        result = PROBES[name]()
    except Exception as error:  # whatever it is, it is the finding
        text = " ".join(str(error).split()) or type(error).__name__
        result = {"error": text, "kind": type(error).__name__, "module": getattr(error, "name", "")}
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
