"""``edgemask-convert import-labelme``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import formatted

EXAMPLE = """example:
  edgemask-convert import-labelme photographs --labels bolt,nut --out annotations.json

Shapes with the same group_id become one object. Points and lines are left out.
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "import-labelme", "collect labelme files into one COCO file", EXAMPLE)
    parser.add_argument("folder", type=Path, help="folder of labelme's JSON files, searched "
                        "with its subfolders")  # fmt: skip
    parser.add_argument("--images", type=Path, help="folder of the photographs; file names will "
                        "be relative to it [FOLDER]")  # fmt: skip
    parser.add_argument("--labels", help="file with one label per line, or labels separated by "
                        "commas; ids follow their order [the labels that occur]")  # fmt: skip
    parser.add_argument("--empty", action="store_true",
                        help="list photographs without a JSON file as showing no objects; "
                        "otherwise they are left out")  # fmt: skip
    parser.add_argument("--boxes", action="store_true",
                        help="take rectangles as boxes, not as outlines: their masks stay "
                        "open, for edgemask-convert teach to fill")  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, help="COCO JSON to write")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Convert and say what came in."""
    from edgemask.outputs import write_json

    from ..data.labelme import import_labelme, keep_labelme, read_labels

    keep_labelme(options.folder, options.out)
    labels = None if options.labels is None else read_labels(options.labels)
    data = import_labelme(options.folder, options.images, labels, options.empty, options.boxes)
    write_json(options.out, data)
    print(f"{options.out}: {len(data['images'])} images, {len(data['annotations'])} objects")
    for category in data["categories"]:
        count = sum(a["category_id"] == category["id"] for a in data["annotations"])
        print(f"  {category['id']:>4} {category['name']:20} {count:6} objects")
    return 0
