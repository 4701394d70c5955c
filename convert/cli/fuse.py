"""``edgemask-convert fuse``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgemask.terminal import bar_options

from .common import calibration_paths, check_output, formatted, watch

EXAMPLE = """example:
  edgemask-convert fuse --checkpoint wide.npz --config convert/configs/people.toml \\
      --images images --out start.npz

The config's model.backbone.fused gives the widths of three dense blocks that replace MobileNetV2's
blocks 0 to 3, or of one that replaces blocks 0 and 1. They learn to reproduce the output of
--teacher's early blocks, from photographs alone, in a few minutes. All other weights are taken from
--checkpoint where they fit; layers that start fresh are listed. Train with the same config and
--start-from start.npz.
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "fuse", "give a network dense early blocks that imitate a teacher's",
                       EXAMPLE)  # fmt: skip
    parser.add_argument("--checkpoint", required=True, type=Path, help="the trained network")
    parser.add_argument("--config", required=True, type=Path, help="TOML of the network to make")
    parser.add_argument("--teacher", type=Path, help="whose early blocks to imitate [--checkpoint]")
    parser.add_argument("--images", required=True, type=Path, help="folder of photographs")
    parser.add_argument("--annotations", type=Path, help="COCO JSON that lists them [all files]")
    parser.add_argument("--count", type=int, default=1200, help="photographs to use [%(default)s]")
    parser.add_argument("--steps", type=int, default=1800,
                        help="steps for the early blocks alone [%(default)s]")  # fmt: skip
    parser.add_argument("--trunk-steps", type=int, default=0,
                        help="then for the whole trunk, to match the teacher's pyramid and RPN "
                        "outputs, so that its heads fit unchanged [%(default)s]")  # fmt: skip
    parser.add_argument("--batch", type=int, default=16, help="crops per step [%(default)s]")
    parser.add_argument(
        "--crop", type=int, default=192, help="side of a crop in pixels [%(default)s]"
    )
    parser.add_argument("--learning-rate", type=float, default=0.012,
                        help="of the early blocks, 20 times that of the trunk "
                        "[%(default)s]")  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, help="checkpoint to write")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Copy what fits, fit the rest."""
    import keras
    from tqdm import tqdm

    from ..arch import build_model
    from ..checkpoint import export_model, load_model
    from ..compress.fuse import copy_weights, fit_front, fit_trunk, load_small, random_crops
    from ..config import load_config

    if options.crop % 32 or options.crop < 32:
        raise ValueError(f"--crop is {options.crop}: it must be a multiple of 32")
    for name, least in (("steps", 0), ("trunk_steps", 0), ("batch", 1), ("count", 1)):
        if (value := getattr(options, name)) < least:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is {value}: it must be {least} or more")
    check_output(
        options.out, options.checkpoint, options.teacher, options.config, options.annotations
    )
    config = load_config(options.config)
    paths = calibration_paths(options.images, options.annotations, options.count)
    keras.utils.set_random_seed(config.train.seed)
    source, header = load_model(options.checkpoint)
    known = [entry["id"] for entry in header["classes"]]
    if known != config.model.classes:
        raise ValueError(
            f"{options.config} has model.classes {config.model.classes}, {options.checkpoint} has "
            f"{known}: they must be the same"
        )
    teacher = load_model(options.teacher)[0] if options.teacher else source
    target = build_model(config.model)
    fresh = copy_weights(source, target)
    if fresh:
        print(f"not taken from {options.checkpoint}: {', '.join(fresh)}")
    images = [load_small(path, 3 * options.crop) for path in watch(paths, "reading images")]
    crops = random_crops(images, options.crop, options.batch, config.train.seed)
    told = []
    for what, fit, steps, rate in (
        ("early blocks", fit_front, options.steps, options.learning_rate),
        ("trunk", fit_trunk, options.trunk_steps, options.learning_rate / 20),
    ):
        if not steps:
            continue
        bar = tqdm(total=steps, desc=what, **bar_options(sys.stderr))

        def say(step: int, errors: list[float], bar=bar) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(error=f"{errors[-1]:.3f}")

        with bar:
            errors = fit(teacher, target, crops, steps, rate, say)
        told.append(f"{what} {', '.join(f'{error:.3f}' for error in errors)}")
    export_model(options.out, target, header | {"config": config.to_dict(), "step": 0})
    print(f"{options.out}: squared error over variance: {'; '.join(told) or 'nothing was fitted'}")
    return 0
