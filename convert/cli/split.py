"""``edgemask-convert split``."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from .common import check_output, formatted

EXAMPLE = """example:
  edgemask-convert split annotations.json --dev 0.2 --out data

writes data/train.json and data/dev.json. The images stay where they are.
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "split", "split a dataset into one to train and one to measure on",
                       EXAMPLE)  # fmt: skip
    parser.add_argument("annotations", type=Path, help="COCO JSON")
    parser.add_argument("--dev", type=float, default=0.2, metavar="SHARE",
                        help="share of the images to measure on [%(default)s]")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another split "
                        "[%(default)s]")  # fmt: skip
    parser.add_argument("--by-folder", action="store_true",
                        help="keep the images of a folder together, such as the frames of a "
                        "video")  # fmt: skip
    parser.add_argument("--crowds-as-objects", action="store_true",
                        help="set iscrowd to 0 everywhere; CVAT exports painted masks as "
                        "crowds")  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, help="folder for train.json, dev.json")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Divide and say how the classes are spread."""
    from edgemask.evaluate import load_annotations
    from edgemask.outputs import write_json

    from ..data.coco_fields import check_fields
    from ..data.dataset import DatasetWarning
    from ..data.split import one_sided, split_dataset

    data = load_annotations(options.annotations)
    check_fields(data, str(options.annotations))
    paths = [options.out / "train.json", options.out / "dev.json"]
    for path in paths:
        check_output(path, options.annotations)
    parts = split_dataset(
        data, options.dev, options.seed, options.by_folder, options.crowds_as_objects
    )
    for path, part in zip(paths, parts, strict=True):
        write_json(path, part)
        print(f"{path}: {len(part['images'])} images, {len(part['annotations'])} objects")
    for category in data["categories"]:
        counts = [sum(a["category_id"] == category["id"] for a in p["annotations"]) for p in parts]
        print(f"  {category['id']:>4} {category['name']:20} {counts[0]:6} {counts[1]:6}")
    lonely = one_sided(parts)
    if lonely:
        warnings.warn(
            f"{len(lonely)} classes have objects in only one of the two files, first: "
            f"{lonely[0]}; try another --seed, or label more of them",
            DatasetWarning,
            stacklevel=2,
        )
    return 0
