"""Write pipeline_golden.json: hashes of every array of a frame with the bundled model.

    python tests/data/make_pipeline_golden.py

To be run when the bundled model or, on purpose, a result of the pipeline has changed. All machines
give the same bits, so it does not matter which one it is run on.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "benchmarks"), str(HERE.parents[1] / "benchmarks" / "arm64")]

from frame import hashes_of, load_stages  # noqa: E402
from pictures import crowd, photograph  # noqa: E402

from edgemask.modelpack import load_pack  # noqa: E402

GOLDEN = HERE / "pipeline_golden.json"


def pictures() -> dict[str, NDArray[np.uint8]]:
    """Return what the hashes are of: the photograph, a crowd, and noise of an odd size."""
    noise = np.random.default_rng(0).integers(0, 256, (333, 417, 3), np.uint8)
    return {
        "astronaut": np.asarray(photograph()),
        "crowd": np.asarray(crowd()),
        "noise": noise,
    }


def golden() -> dict[str, Any]:
    """Return what the file holds."""
    pack = load_pack("people")
    stages = load_stages(pack)
    return {
        "model_sha256": pack.sha256,
        "made_with": {n: importlib.metadata.version(n) for n in ("ai-edge-litert", "pillow")},
        "frames": {n: hashes_of(pack.manifest, stages, rgb) for n, rgb in pictures().items()},
    }


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n", "utf-8")
