"""``edgemask-convert verify``."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from edgemask.cli.common import positive_int

from .common import calibration_paths, check_output, formatted, watch, write_text

EXAMPLE = """example:
  edgemask-convert verify build/people.zip --float runs/people/model.npz --images images

Exit status 1 if a stage is not one XNNPACK partition, or int8 and float disagree.
"""
COUNT = 40


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "verify", "check that a pack is delegated and agrees with its float "
                       "parent", EXAMPLE)  # fmt: skip
    parser.add_argument("pack", type=Path, help="pack that quantize wrote")
    parser.add_argument("--float", type=Path, dest="parent", help="the float checkpoint")
    parser.add_argument("--images", type=Path, help="folder of photographs to compare on")
    parser.add_argument(
        "--annotations", type=Path, help="use only images that this COCO file lists"
    )
    parser.add_argument("--count", type=positive_int, metavar="N",
                        help=f"images to compare on [{COUNT}]")  # fmt: skip
    parser.add_argument("--save", type=Path, help="write the figures as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Verify, print a table, return the verdict."""
    from edgemask.modelpack import load_pack

    from ..checkpoint import load_model
    from ..export.quantize import load_images
    from ..export.verify import verify

    if options.parent and not options.images:
        raise ValueError("--float needs --images: photographs to compare the two networks on")
    if not options.parent and (options.images or options.annotations or options.count):
        raise ValueError(
            "--images, --annotations and --count need --float: without the float checkpoint there "
            "is nothing to compare with"
        )
    if options.save:
        check_output(options.save, options.pack, options.parent, options.annotations)
    model, images = None, []
    if options.parent:
        model = load_model(options.parent)[0]
        paths = calibration_paths(options.images, options.annotations, options.count or COUNT)
        images = load_images(paths)
    result = verify(load_pack(options.pack), model, images, watch)
    for stage, sizes in result.partitions.items():
        for size, (count, outside) in sizes.items():
            print(f"{stage:10} {size:14} partitions {count}  outside {len(outside)}")
    for tensor, decibel in result.signal.items():
        print(f"{tensor:28} {decibel:5.1f} dB above its int8 error")
    if result.end_to_end:
        e = result.end_to_end
        print(
            f"detections: float {e['float']}, int8 {e['int8']}, agreeing {e['matched']:.1%}, "
            f"mask IoU {e['mask_iou']:.3f}"
            + (f", keypoints {e['keypoint_shift']:.1%} apart" if "keypoint_shift" in e else "")
        )
    if options.save:
        write_text(options.save, json.dumps(dataclasses.asdict(result), indent=1))
    for failure in result.failures:
        print(f"FAILED  {failure}")
    failed = len(result.failures)
    print(f"{failed} check{'' if failed == 1 else 's'} failed" if failed else "verified")
    return 1 if failed else 0
