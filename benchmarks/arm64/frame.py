"""What one frame gives and costs, to be run natively and on an emulated board alike.

    python benchmarks/arm64/frame.py photograph.jpg --hashes
    python benchmarks/arm64/frame.py photograph.jpg --count 10

``--hashes`` prints, as JSON, a hash of every array between two stages: where two machines disagree,
the first of these that differs names the stage. ``--count N`` runs N frames more and marks each
border between two stages for the instruction counter (insncount.c); it prints the names of the
steps in the order in which they ran.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgemask import load_image
from edgemask.modelpack import ModelPack, load_pack
from edgemask.pipeline import Pipeline
from edgemask.runtime import Stage

MARK_BASE = -1000000  # as in insncount.c


def digest(array: Any) -> str:
    """Hash an array's type, shape and bits."""
    array = np.ascontiguousarray(array)
    content = hashlib.sha256(f"{array.dtype.name} {array.shape} ".encode())
    content.update(array.data)
    return content.hexdigest()[:16]


class Recorder:
    """A stage that notes the hashes of what goes in and comes out."""

    def __init__(self, stage: Stage, name: str, hashes: dict[str, str]) -> None:
        self.quantization = stage.quantization
        self._stage, self._name, self._hashes = stage, name, hashes

    def run(self, **arrays: Any) -> dict[str, Any]:
        """Run the stage."""
        outputs = self._stage.run(**arrays)
        for name, array in [*arrays.items(), *sorted(outputs.items())]:
            self._hashes[f"{self._name}.{name}"] = digest(array)
        return outputs


def load_stages(pack: ModelPack) -> dict[str, Stage]:
    """Return the stages of a pack, on one thread."""
    return {
        name: Stage(content, pack.stage_spec(name), 1, name=name)
        for name, content in pack.stages.items()
    }


def hashes_of(manifest: Mapping[str, Any], stages: Mapping[str, Stage], rgb: Any) -> dict[str, Any]:
    """Return the hashes of one frame, in the order in which things are made.

    The score threshold is low: the more instances, the more is compared.
    """
    hashes: dict[str, Any] = {"rgb": digest(rgb)}
    recorders = {name: Recorder(stage, name, hashes) for name, stage in stages.items()}
    found = Pipeline(manifest, recorders)(rgb, score_threshold=0.1)
    hashes["boxes"], hashes["scores"] = digest(found.boxes), digest(found.scores)
    hashes["masks"] = digest(found.masks.to_dense())
    return {**hashes, "instances": len(found)}


class Marks:
    """A clock that has the instruction counter written down whenever it is read."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> float:
        """Return how often the clock was read before."""
        with contextlib.suppress(OSError):
            os.close(MARK_BASE - self.count)
        self.count += 1
        return float(self.count)


def main() -> None:
    """Run the frames that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--model", default="people")
    parser.add_argument("--hashes", action="store_true")
    parser.add_argument("--count", type=int, default=0, metavar="N")
    options = parser.parse_args()
    pack = load_pack(options.model)
    stages = load_stages(pack)
    for picture in options.pictures:
        rgb = load_image(picture)
        record: dict[str, Any] = {"picture": os.path.basename(picture), "model": pack.sha256}
        if options.hashes:
            record["hashes"] = hashes_of(pack.manifest, stages, rgb)
        if options.count:
            pipeline = Pipeline(pack.manifest, stages, clock=Marks())
            for _ in range(options.count):
                pipeline(rgb)
            record["steps"] = [name for name in pipeline.timings if name != "total"]
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
