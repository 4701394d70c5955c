"""``edgemask-convert pack``."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from .common import check_output, formatted

EXAMPLE = """example:
  edgemask-convert evaluate build/people.zip --annotations dev.json --images images \\
      --save int8.json
  edgemask-convert evaluate runs/people/model.npz --annotations dev.json --images images \\
      --save float.json
  edgemask-convert pack build/people.zip --int8 int8.json --float float.json --version 1 \\
      --description "person masks" --license Apache-2.0 --out people.zip

Refuses a pack that loses more accuracy against its float parent than --max-drop.
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "pack", "add measurements and a licence, and write the final pack",
                       EXAMPLE)  # fmt: skip
    parser.add_argument("pack", type=Path, help="pack that quantize wrote")
    parser.add_argument("--int8", required=True, type=Path,
                        help="what evaluate --save wrote for this pack")  # fmt: skip
    parser.add_argument("--float", required=True, type=Path, dest="parent",
                        help="what evaluate --save wrote for its float parent")  # fmt: skip
    parser.add_argument("--max-drop", type=float, default=0.005,
                        help="accepted loss of mask or keypoint AP [%(default)s]")  # fmt: skip
    parser.add_argument("--version", required=True, help="of this model, such as 1")
    parser.add_argument("--description", required=True, help="one line that says what it finds")
    parser.add_argument("--license", required=True, help="of the weights, such as Apache-2.0")
    parser.add_argument(
        "--credit", action="append", default=[], help="source to name; may be repeated"
    )
    parser.add_argument("--note", action="append", default=[], metavar="KEY=VALUE",
                        help="added to the training record; may be repeated")  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, help="pack to write, .zip")
    parser.set_defaults(run=run)


class PackRefused(ValueError):
    """The pack is worse than its bound allows."""


def run(options: argparse.Namespace) -> int:
    """Check the accuracy drop and write the pack."""
    from edgemask.modelpack import load_pack

    from ..evaluation.predictions import model_sha256
    from ..export.packfile import write_pack

    if not math.isfinite(options.max_drop):
        raise ValueError(f"--max-drop is {options.max_drop}: give a number")
    check_output(options.out, options.int8, options.parent)
    pack = load_pack(options.pack)
    measured = {}
    for key, path in (("int8", options.int8), ("float", options.parent)):
        measured[key] = read_measurement(path)
    drop = check_drop(measured["int8"], measured["float"], options.max_drop)
    if measured["int8"].get("model_sha256", "") not in ("", model_sha256(options.pack)):
        raise PackRefused(
            f"{options.int8} has figures for a different model than {options.pack}: "
            "evaluate the pack again"
        )
    for item in options.note:
        if "=" not in item:
            raise ValueError(f"--note {item!r} is not of the form KEY=VALUE")
    notes = dict(item.split("=", 1) for item in options.note)
    manifest = dict(pack.manifest) | {
        "version": options.version,
        "description": options.description,
        "license": options.license,
        "credits": options.credit,
        "training": dict(pack.manifest["training"]) | notes,
        "metrics": measured,
    }
    write_pack(options.out, manifest, dict(pack.stages))
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {size:.2f} MB, mask AP {measured['int8']['segm']['AP']:.3f} "
          f"(float {measured['float']['segm']['AP']:.3f}, drop {drop:+.4f})")  # fmt: skip
    return 0


def read_measurement(path: Path) -> dict:
    """What ``evaluate --save`` wrote.

    Raises
    ------
    ValueError
        Another file, or one without a mask AP.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        float(record["segm"]["AP"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no mask AP: give what edgemask-convert evaluate --save wrote"
        ) from error
    return record


def check_drop(int8: dict, parent: dict, limit: float) -> float:
    """Float minus int8 mask AP.

    Raises
    ------
    PackRefused
        If it, or that of keypoints, exceeds ``limit``, or the two were measured on different
        images, or are of one model.
    """
    for key in ("dataset", "images", "short_side"):
        if int8.get(key) != parent.get(key):
            raise PackRefused(
                f"int8 and float were measured differently: {key} is {int8.get(key)} and "
                f"{parent.get(key)}; evaluate both in the same way"
            )
    own = int8.get("model_sha256")
    if own and own == parent.get("model_sha256"):
        raise PackRefused(
            "--int8 and --float hold figures for the same model: give those of the pack and of "
            "its float parent"
        )
    both = int8.keys() & parent.keys()
    drops = {
        what: (parent[kind]["AP"] or 0.0) - (int8[kind]["AP"] or 0.0)
        for kind, what in (("segm", "mask"), ("keypoints", "keypoint"))
        if kind in both
    }
    for what, drop in drops.items():
        if drop > limit:
            raise PackRefused(
                f"int8 loses {drop:.4f} {what} AP against its float parent, more than {limit}: "
                "calibrate on more images, fine-tune, or accept it with --max-drop"
            )
    return drops["mask"]
