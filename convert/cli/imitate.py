"""``edgemask-convert imitate``."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from edgemask.cli.common import positive_int
from edgemask.terminal import bar_options

from .common import calibration_paths, check_output, formatted

EXAMPLE = """example:
  edgemask-convert quantize coco80-wide.npz --images images --out coco80-wide.zip
  edgemask-convert imitate --teacher coco80-wide.zip --checkpoint coco80-narrow.npz \\
      --images images --out coco80.npz

For a network of the kind maskrcnn2go whose trunk `prune` has left unchanged. It needs no labels. As
a teacher, an int8 pack is many times faster than a checkpoint.
"""
STEPS = {"rpn": 3000, "box_head": 3000, "mask_head": 600}


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "imitate", "fit a narrowed network to the wide one, part by part",
                       EXAMPLE)  # fmt: skip
    parser.add_argument("--teacher", required=True, type=Path, help="wide network, .zip or .npz")
    parser.add_argument("--checkpoint", required=True, type=Path, help="narrowed network")
    parser.add_argument("--images", required=True, type=Path, help="folder of photographs")
    parser.add_argument("--annotations", type=Path, help="COCO JSON that lists them [all files]")
    parser.add_argument(
        "--count", type=positive_int, default=3000,
        help="photographs to learn from; each takes about 2 MB [%(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--steps", action="append", default=[], metavar="PART=N", type=_steps,
        help="steps for rpn, box_head or mask_head; 0 leaves it unchanged; may be repeated "
        f"[{' '.join(f'{k}={v}' for k, v in STEPS.items())}]",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the random choices [%(default)s]")
    parser.add_argument("--out", required=True, type=Path, help="checkpoint to write")
    parser.set_defaults(run=run)


def _steps(text: str) -> tuple[str, int]:
    part, _, number = text.partition("=")
    if part in STEPS and number.isdecimal():
        return part, int(number)
    raise argparse.ArgumentTypeError(f"{text!r} is not PART=N with PART one of {', '.join(STEPS)}")


def run(options: argparse.Namespace) -> int:
    """Collect lessons, fit, write."""
    from tqdm import tqdm

    from edgemask.images import load_image

    from ..checkpoint import export_model, load_model
    from ..compress.imitate import OTHER_TRUNK, ImitationError, imitate, trunk_gap
    from ..compress.lessons import lessons
    from ..evaluation.predictions import load_pipeline, model_sha256

    check_output(options.out, options.checkpoint, options.teacher, options.annotations)
    student, header = load_model(options.checkpoint)
    teacher = load_pipeline(options.teacher)
    if teacher.manifest["classes"] != header["classes"]:
        raise ImitationError(f"{options.teacher} and {options.checkpoint} have different classes")
    paths = calibration_paths(options.images, options.annotations, options.count)
    gap = trunk_gap(student, teacher, load_image(paths[0]))
    if gap > OTHER_TRUNK:
        raise ImitationError(
            f"the trunk of {options.checkpoint} is not that of {options.teacher} (relative error "
            f"of its features {gap:.2f}): prune without a budget for the trunk"
        )
    bar = tqdm(paths, desc="lessons", **bar_options(sys.stderr))
    learnt = list(lessons(teacher, map(load_image, bar), options.seed))

    def say(part: str, step: int, loss: float) -> None:
        print(f"{part}: step {step}, loss {loss:.4f}", file=sys.stderr)

    steps = STEPS | dict(options.steps)
    fits = imitate(student, learnt, steps, seed=options.seed, say=say)
    listed = options.annotations
    header |= {
        "step": sum(steps.values()),
        "data": {
            "annotations": listed and listed.name,
            "sha256": listed and hashlib.sha256(listed.read_bytes()).hexdigest(),
            "images": len(paths),
            "teacher": model_sha256(options.teacher),
            "first_weights": model_sha256(options.checkpoint),
        },
        "imitation": {"steps": steps, "seed": options.seed},
        "epochs": {part: round(fit.epochs, 2) for part, fit in fits.items()},
    }
    export_model(options.out, student, header)
    for part, fit in fits.items():
        print(
            f"{part}: {steps[part]} steps, {fit.epochs:.2g} epochs, "
            f"loss {fit.before:.4f} to {fit.after:.4f}"
        )
    return 0
