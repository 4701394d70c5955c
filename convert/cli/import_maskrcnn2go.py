"""``edgemask-convert import-maskrcnn2go``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import check_output, formatted

EXAMPLE = """example:
  edgemask-convert import-maskrcnn2go --weights maskrcnn2go --out coco80-wide.npz

The folder must hold model.pb and model_init.pb, from mask_rcnn_2go/model/int8 of
github.com/facebookarchive/models. The checkpoint can be evaluated, pruned, trained and quantized.
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "import-maskrcnn2go", "turn MaskRCNN2Go into a checkpoint", EXAMPLE)
    parser.add_argument(
        "--weights", required=True, type=Path, help="folder with model.pb and model_init.pb"
    )
    parser.add_argument("--out", required=True, type=Path, help="checkpoint to write")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Convert and write."""
    from ..arch.macs import network_macs
    from ..checkpoint import export_model
    from ..config import Config
    from ..teach.caffe2_weights import import_maskrcnn2go
    from ..teach.coco import COCO_CATEGORIES

    check_output(options.out)
    model = import_maskrcnn2go(options.weights)
    classes = [{"id": number, "name": name} for number, name in COCO_CATEGORIES.items()]
    header = {"config": Config(model.config).to_dict(), "step": 0, "classes": classes}
    export_model(options.out, model, header)
    macs = ", ".join(f"{k} {v / 1e6:.1f}" for k, v in network_macs(model.config, 320, 416).items())
    print(f"{options.out}: {len(classes)} classes; MMAC at 416x320, heads per region: {macs}")
    return 0
