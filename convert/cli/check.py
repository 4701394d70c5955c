"""``edgemask-convert check``."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgemask.cli.common import positive_int

from .common import formatted, watch

EXAMPLE = """example:
  edgemask-convert check --annotations annotations.json --images photographs

Exit status 1 if the trainer would refuse the dataset or fail on a photograph; with --strict also if
anything is left out or looks wrong.
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "check", "check a dataset before training", EXAMPLE)
    parser.add_argument("--annotations", required=True, type=Path, help="COCO JSON")
    parser.add_argument("--images", required=True, type=Path, help="folder of its images")
    parser.add_argument("--short-side", type=positive_int, default=320, metavar="N",
                        help="shorter side of the network's input, at which sizes are given "
                        "[%(default)s]")  # fmt: skip
    parser.add_argument("--strict", action="store_true",
                        help="also fail on warnings and suspicions")  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check and print."""
    from ..data.check import check_dataset

    check = check_dataset(
        options.annotations, options.images, options.short_side,
        lambda images: watch(images, "check"),
    )  # fmt: skip
    total = sum(row["objects"] for row in check.classes)
    print(f"{options.annotations}: {check.images} images, {check.empty} of them without objects, "
          f"{total} objects")  # fmt: skip
    print(f"{'id':>6} {'class':24} {'objects':>8} {'masks':>8} {'images':>8}")
    for row in check.classes:
        print(f"{row['id']:6} {row['name']:24} {row['objects']:8} {row['masks']:8} "
              f"{row['images']:8}")  # fmt: skip
    shapes = [f"{n} of {w}x{h}" for (w, h), n in check.shapes.most_common(3)]
    more = f", {len(check.shapes) - 3} other sizes" if len(check.shapes) > 3 else ""
    modes = ", ".join(f"{n} {mode}" for mode, n in check.modes.most_common())
    print(f"images: {', '.join(shapes)}{more}; pixels {modes}")
    sizes = ", ".join(f"{name}: {n}" for name, n in check.by_size.items())
    print(f"objects by side in pixels at short side {options.short_side}: {sizes}")
    for title, lines in (
        ("broken", check.broken), ("left out", check.warnings), ("suspicious", check.suspicions),
        ("advice", check.advice),
    ):  # fmt: skip
        for line in lines:
            print(f"{title}: {line}")
    found = len(check.warnings) + len(check.suspicions)
    if check.broken:
        print(f"{len(check.broken)} images cannot be decoded: replace them, or take them out")
    else:
        print(
            "nothing is wrong"
            if not found
            else f"{found} kind{'' if found == 1 else 's'} of things to look at"
        )
    return 1 if check.broken or (options.strict and found) else 0
