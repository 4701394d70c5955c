"""``edgemask-convert quantize``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from edgemask.cli.common import positive_int

from .common import calibration_paths, check_output, formatted, watch, write_text

EXAMPLE = """example:
  edgemask-convert quantize runs/people/model.npz --annotations train.json \\
      --images images --out build/people.zip --report build/errors.md
  edgemask-convert quantize runs/people/model.npz --format float16 --out build/people-16.zip
  edgemask-convert quantize runs/pose/model.npz --without-keypoints --name people \\
      --images images --out build/people.zip

Writes a pack without measurements; edgemask-convert pack adds them.
"""
PRIVATE = ("config", "classes", "neck_channels")  # of the header, what tells a device nothing


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(
        verbs, "quantize", "turn a checkpoint into TFLite stages, int8 or float", EXAMPLE
    )
    parser.add_argument("checkpoint", type=Path, help="model.npz or a training checkpoint")
    parser.add_argument(
        "--format", choices=("int8", "float16", "float32"), default="int8",
        help="arithmetic; float16 stores weights in half precision and computes in float32 "
        "[%(default)s]",
    )  # fmt: skip
    parser.add_argument("--images", type=Path, help="folder of photographs to calibrate int8 on")
    parser.add_argument(
        "--annotations", type=Path, help="use only images that this COCO file lists"
    )
    parser.add_argument(
        "--count", type=positive_int, default=200, metavar="N",
        help="images to calibrate on [%(default)s]",
    )  # fmt: skip
    parser.add_argument("--name", help="name of the pack [the one in the configuration]")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="change a setting of the network other than its weights, "
        "e.g. model.rpn.score_threshold=0.15",
    )  # fmt: skip
    parser.add_argument(
        "--without-keypoints", action="store_true", help="leave out the keypoint head"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE",
        help="compare int8 with float tensor by tensor, worst first; .json or .md",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, type=Path, help="pack to write, e.g. build/NAME.zip"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Quantize and write the pack."""
    from edgemask.manifest import SAFE_NAME

    from ..checkpoint import load_model
    from ..config_rules import NAME_RULE
    from ..export.packfile import write_pack
    from ..export.quantize import convert_float, load_images, quantize_model

    def progress(text: str) -> None:
        print(text, file=sys.stderr)

    int8 = options.format == "int8"
    if int8 and not options.images:
        raise ValueError("int8 needs --images: photographs to calibrate on")
    if options.report and not int8:
        raise ValueError(f"--report compares int8 with float: there is nothing in {options.format}")
    if options.report and options.report.suffix not in (".json", ".md"):
        raise ValueError(f"--report {options.report}: give a name that ends in .json or .md")
    if options.name is not None and not SAFE_NAME.match(options.name):
        raise ValueError(f"--name {options.name!r} {NAME_RULE}")
    for path in filter(None, (options.out, options.report)):
        check_output(path, options.checkpoint, options.annotations)
    model, header = load_model(options.checkpoint, options.set)
    if options.without_keypoints:
        model = model.without_keypoints()
    if options.name is not None:
        model.config.name = options.name
    if int8:
        paths = calibration_paths(options.images, options.annotations, options.count)
        images = load_images(paths)
        manifest, stages = quantize_model(
            model, header["classes"], images, progress=progress, watch=watch
        )
    else:
        manifest, stages = convert_float(model, header["classes"], options.format, progress)
    manifest |= {
        "version": "0",
        "description": "not measured yet",
        "license": "",
        "credits": [],
        "training": {"epochs": header["config"]["train"]["epochs"]}  # imitate knows better
        | {k: v for k, v in header.items() if k not in PRIVATE},
        "metrics": {},
    }
    write_pack(options.out, manifest, stages)
    sizes = ", ".join(f"{name} {len(data) / 1e6:.2f} MB" for name, data in stages.items())
    print(f"{options.out}: {sizes}")
    if options.report:
        progress("comparing tensors")
        _report(options.report, model, manifest, stages, images)
    return 0


def _report(path: Path, model, manifest, stages, images) -> None:
    """Write the errors of all tensors, and print the worst."""
    from ..export.tensor_errors import as_markdown, pack_errors

    errors = pack_errors(model, manifest, stages, images, watch)
    if path.suffix == ".json":
        text = json.dumps([dataclasses.asdict(error) for error in errors], indent=1)
    else:
        text = as_markdown(errors)
    write_text(path, text)
    for e in errors[:3]:
        print(f"most is lost in {e.stage}, {e.layer}: {e.added:.4f} added, SQNR {e.sqnr:.1f} dB, "
              f"{e.ruined} of {e.channels} channels ruined")  # fmt: skip
