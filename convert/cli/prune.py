"""``edgemask-convert prune``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .common import calibration_paths, check_output, formatted, watch

if TYPE_CHECKING:
    from ..arch.model import MaskRCNN
    from ..config import Config

EXAMPLE = """example:
  edgemask-convert prune --checkpoint models/people.npz --config people-lite.toml \\
      --trunk-mmac 230 --images images --out runs/lite/start.npz

It prints the line `expansions = [...]` that belongs in the config's [model.backbone]; train with
that config and --start-from start.npz. Without --trunk-mmac the config's own expansions are used.

A network of the kind maskrcnn2go has four parts: trunk, rpn, box_head and mask_head. --budget sets
the cost of each, that of the heads for one region:
  edgemask-convert prune --checkpoint coco80-wide.npz --config coco80.toml --images images \\
      --budget trunk=900 --budget rpn=180 --budget box_head=7.4 --budget mask_head=26 --out n.npz
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "prune", "make a narrower network from a trained one", EXAMPLE)
    parser.add_argument("--checkpoint", required=True, type=Path, help="the trained network")
    parser.add_argument("--config", required=True, type=Path, help="TOML of the narrow network")
    parser.add_argument("--images", required=True, type=Path, help="folder of photographs")
    parser.add_argument("--annotations", type=Path, help="COCO JSON that lists them [all files]")
    parser.add_argument("--count", type=int, default=64, help="photographs to look at [64]")
    parser.add_argument(
        "--trunk-mmac", type=float, help="choose expansions that cost this many million MACs"
    )
    parser.add_argument(
        "--budget", action="append", default=[], metavar="PART=MMAC", type=_budget,
        help="million MACs for one part of a maskrcnn2go; may be repeated",
    )  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, help="checkpoint to write")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a config value"
    )
    parser.set_defaults(run=run)


def _budget(text: str) -> tuple[str, float]:
    from ..arch.macs import PARTS

    part, _, number = text.partition("=")
    try:
        if part in PARTS and float(number) > 0:
            return part, float(number) * 1e6
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"{text!r} is not PART=MMAC with PART one of {', '.join(PARTS)}"
    )


def _narrow_maskrcnn2go(options: argparse.Namespace, config: Config, wide: MaskRCNN, header) -> int:
    """Plan and refit a network of inverted residuals."""
    from ..arch import build_model
    from ..arch.macs import network_macs
    from ..checkpoint import export_model
    from ..compress.surgeon import measure_network, narrow_blocks, plan_network, set_expansions
    from ..export.quantize import load_images

    if options.trunk_mmac:
        raise ValueError("--trunk-mmac is for MobileNetV2: give --budget trunk=MMAC")
    paths = calibration_paths(options.images, options.annotations, options.count)
    moments = measure_network(wide, header["classes"], watch(load_images(paths), "measuring"))
    if options.budget:
        size = size_of_frame(config.model.short_side)
        expansions = plan_network(wide, moments, dict(options.budget), *size)
        set_expansions(config.model, expansions)
        for part, values in expansions.items():
            print(f"{part}: expansions = {values}")
    target = build_model(config.model)
    narrow_blocks(wide, target, moments)
    export_model(options.out, target, header | {"config": config.to_dict(), "step": 0})
    height, width = size_of_frame(config.model.short_side)
    macs = network_macs(config.model, height, width)
    print(f"{options.out}: MMAC at {width}x{height}, heads per region: "
          + ", ".join(f"{part} {value / 1e6:.1f}" for part, value in macs.items()))  # fmt: skip
    return 0


def size_of_frame(short_side: int) -> tuple[int, int]:
    """Height and width of the network's input for a photograph of 4:3."""
    return short_side, round(short_side * 4 / 3 / 32) * 32


def run(options: argparse.Namespace) -> int:
    """Measure, plan, copy."""
    from ..arch import build_model
    from ..arch.manifest import build_manifest
    from ..checkpoint import export_model, load_model
    from ..compress.prune import group_sizes, measure_channels, narrow
    from ..compress.trunk_surgeon import choose_channels, measure_trunk, plan_trunk, refit_trunk
    from ..config import load_config
    from ..export.quantize import image_samples, load_images

    check_output(options.out, options.checkpoint, options.config, options.annotations)
    config = load_config(options.config, options.set)
    wide, header = load_model(options.checkpoint)
    if wide.config.backbone.kind == "maskrcnn2go":
        return _narrow_maskrcnn2go(options, config, wide, header)
    if options.budget:
        raise ValueError("--budget is for a network of the kind maskrcnn2go: give --trunk-mmac")
    paths = calibration_paths(options.images, options.annotations, options.count)
    manifest = build_manifest(wide.config, header["classes"])
    images = watch(load_images(paths), "measuring")
    statistics = measure_channels(wide, image_samples(images, manifest))
    moments = measure_trunk(wide, image_samples(images, manifest))
    if options.trunk_mmac:
        size = size_of_frame(config.model.short_side)
        budget = options.trunk_mmac * 1e6
        config.model.backbone.expansions = plan_trunk(wide, moments, config.model, size, budget)
        print(f"expansions = {config.model.backbone.expansions}")
    target = build_model(config.model)
    given = choose_channels(wide, target, moments)
    kept_channels, fresh = narrow(wide, target, statistics, given)
    refit_trunk(wide, target, moments, given)
    if fresh:
        print(f"new layers, not taken from {options.checkpoint}: {', '.join(fresh)}")
    header |= {
        "config": config.to_dict(),
        "step": 0,
        "neck_channels": kept_channels["neck"].tolist(),  # what distilling features needs
    }
    export_model(options.out, target, header)
    kept_count, all_count = (sum(group_sizes(m).values()) for m in (target, wide))
    print(f"{options.out}: {kept_count} of {all_count} channels of {options.checkpoint}")
    return 0
