"""``edgemask-convert quantize``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .common import calibration_paths, formatted

EXAMPLE = """example:
  edgemask-convert quantize runs/people/model.npz --annotations train.json \\
      --images images --out build/people.zip

Writes a pack without measurements; edgemask-convert pack adds them.
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "quantize", "turn a checkpoint into int8 TFLite stages", EXAMPLE)
    parser.add_argument("checkpoint", type=Path, help="model.npz or a training checkpoint")
    parser.add_argument("--images", required=True, type=Path, help="folder of photographs")
    parser.add_argument(
        "--annotations", type=Path, help="use only images that this COCO file lists"
    )
    parser.add_argument(
        "--count", type=int, default=200, help="images to calibrate on [%(default)s]"
    )
    parser.add_argument(
        "--out", required=True, type=Path, help="pack to write, e.g. build/NAME.zip"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Quantize and write the pack."""
    from ..checkpoint import load_model
    from ..packfile import write_pack
    from ..quantize import load_images, quantize_model

    model, header = load_model(options.checkpoint)
    paths = calibration_paths(options.images, options.annotations, options.count)
    manifest, stages = quantize_model(
        model, header["classes"], load_images(paths),
        progress=lambda text: print(text, file=sys.stderr),
    )  # fmt: skip
    manifest |= {
        "version": "0",
        "description": "not measured yet",
        "license": "",
        "credits": [],
        "training": {k: v for k, v in header.items() if k not in ("config", "classes")},
        "metrics": {},
    }
    write_pack(options.out, manifest, stages)
    sizes = ", ".join(f"{name} {len(data) / 1e6:.2f} MB" for name, data in stages.items())
    print(f"{options.out}: {sizes}")
    return 0
