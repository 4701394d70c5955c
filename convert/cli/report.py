"""``edgemask-convert report``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgemask.cli.common import positive_int
from edgemask.terminal import bar_options

from .common import formatted, write_text

EXAMPLE = """example:
  edgemask-convert report people.zip --annotations dev.json --images images \\
      --float runs/people/model.npz --out report.html

The HTML file has photographs in it; a file named .md gets the numbers only. Predictions are kept in
OUT.cache, so that a run that was stopped can resume.
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "report", "write a page about a pack: accuracy, calibration, errors, "
                       "cost, photographs", EXAMPLE)  # fmt: skip
    parser.add_argument("pack", help="a pack, or the name of a bundled one")
    parser.add_argument("--annotations", required=True, type=Path, help="COCO JSON")
    parser.add_argument("--images", required=True, type=Path, help="folder of its images")
    parser.add_argument("--float", type=Path, dest="parent", metavar="CHECKPOINT",
                        help="its float parent, to compare with")  # fmt: skip
    parser.add_argument("--predictions", type=Path, metavar="FILE",
                        help="what edgemask eval --save wrote for this pack")  # fmt: skip
    parser.add_argument("--short-side", type=positive_int, metavar="N",
                        help="shorter side of the input [the pack's]")  # fmt: skip
    parser.add_argument("--limit", type=positive_int, metavar="N",
                        help="use only the first images")  # fmt: skip
    parser.add_argument("--pictures", type=_count, default=4, metavar="N",
                        help="how many of the best, typical and worst photographs to show "
                        "[%(default)s]")  # fmt: skip
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder for predictions "
                        "[OUT.cache]")  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, nargs="+", metavar="FILE",
                        help=".html, .md, or both")  # fmt: skip
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Predict what is not known yet, and write the page."""
    from edgemask.errors import InputError
    from edgemask.evaluate import require_pycocotools
    from edgemask.modelpack import load_pack

    from ..evaluation.measure import load_truth
    from ..report.page import Measured, build
    from ..report.predictions import predict, read_predictions
    from ..report.stages import stage_table

    for path in options.out:
        if path.suffix not in (".html", ".md"):
            raise InputError(f"--out {path}: the name must end in .html or .md")
    if options.parent and options.parent.suffix != ".npz":
        raise InputError(f"--float {options.parent}: give the float checkpoint, .npz")
    require_pycocotools()
    pack = load_pack(options.pack)
    truth = load_truth(options.annotations, options.limit)
    listed = {category["id"] for category in truth["categories"]}
    classes = [class_id for class_id in pack.class_ids if class_id in listed]
    if not classes:
        raise InputError(
            f"{options.annotations} has none of the classes {list(pack.class_ids)} of "
            f"{pack.name}: give annotations with the same category ids"
        )
    cache = options.cache or options.out[0].with_suffix(".cache")

    def predicted(model: Path, title: str):
        with _bar(len(truth["images"]), title) as bar:
            return predict(
                model, truth, options.images, cache, options.short_side,
                lambda done, total: bar.update(done - bar.n),
            )  # fmt: skip

    if options.predictions:
        int8 = read_predictions(options.predictions, truth)
    else:
        int8 = predicted(Path(pack.path), "int8")
    measured = Measured(
        pack, truth, options.images, classes, int8,
        predicted(options.parent, "float") if options.parent else None,
        options.short_side or pack.input["short_side"],
    )  # fmt: skip
    table, macs = stage_table(pack, measured.short_side)
    document = build(measured, table, macs, options.pictures)
    for path in options.out:
        text = document.html() if path.suffix == ".html" else document.markdown()
        write_text(path, text)
        print(f"{path}: {path.stat().st_size / 1e3:,.0f} kB")
    return 0


def _bar(total: int, title: str):
    from tqdm import tqdm

    return tqdm(total=total, desc=title, **bar_options(sys.stderr), unit="image", delay=2)
