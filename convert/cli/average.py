"""``edgemask-convert average``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import check_output, formatted

EXAMPLE = """example:
  edgemask-convert average models/people.npz runs/people/model.npz --out people.npz
  edgemask-convert average a.npz b.npz c.npz --shares 1 1 2 --out mean.npz

For runs that began from the same weights: their mean is often better than any of them. Measure it
with `edgemask-convert evaluate`.
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "average", "average several trained checkpoints", EXAMPLE)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="of the same network, .npz")
    parser.add_argument(
        "--shares", nargs="+", type=float, help="weight of each in the mean [equal]"
    )
    parser.add_argument("--out", required=True, type=Path, help="checkpoint to write")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Average and write."""
    from ..checkpoint import export_model
    from ..training.average import average

    check_output(options.out, *options.checkpoints)
    model, header = average(options.checkpoints, options.shares)
    export_model(options.out, model, header)
    parts = ", ".join(f"{part['share']:.2f} of {part['file']}" for part in header["average"])
    print(f"{options.out}: {parts}")
    return 0
