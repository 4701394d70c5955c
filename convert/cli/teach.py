"""``edgemask-convert teach``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgemask.cli.common import positive_int
from edgemask.terminal import bar_options

from .common import add_cluster, check_output, chosen_cluster, formatted

if TYPE_CHECKING:
    from ..teach.merge import Rules

EXAMPLE = """example:
  edgemask-convert teach --teacher maskrcnn2go:models/int8 --annotations train.json \\
      --images images --out taught.json

Teachers:
  maskrcnn2go:FOLDER     model.pb and model_init.pb, 80 COCO classes
  torchvision[:WEIGHTS]  maskrcnn_resnet50_fpn_v2, 80 COCO classes; needs extra [torchvision]
  pack:FILE              an edgemask model pack, or the name of a bundled one
  checkpoint:FILE        model.npz or a training checkpoint
  module:function        your own; see docs/teach.md

Gives masks to objects that have only a box, and adds objects where the labels do not claim to be
complete. Run it first with --measure on images that have masks: it says how good the teacher's are.
A run that was stopped resumes when the same command is given again.
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "teach", "label images with a teacher network, merged with "
                       "existing labels", EXAMPLE)  # fmt: skip
    parser.add_argument("--teacher", required=True, metavar="TEACHER", help="see below")
    parser.add_argument("--images", required=True, type=Path, help="folder of photographs")
    parser.add_argument("--annotations", type=Path,
                        help="COCO JSON; without it, all images in the folder are labelled from "
                        "scratch")  # fmt: skip
    parser.add_argument("--out", type=Path, help="COCO JSON to write")
    parser.add_argument("--short-sides", type=_sides, metavar="N[,N…]",
                        help="short sides at which to view an image [the teacher's]")  # fmt: skip
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction,
                        help="also look at the mirrored image [the teacher's choice]")  # fmt: skip
    parser.add_argument("--accept", type=float, default=0.5, metavar="SCORE",
                        help="lowest score of an instance [%(default)s]")  # fmt: skip
    parser.add_argument("--doubt", type=float, default=0.25, metavar="SCORE",
                        help="lowest score of an ignore region [%(default)s]")  # fmt: skip
    parser.add_argument("--mask-score", type=float, default=0.7, metavar="SCORE",
                        help="lowest mean probability inside a mask [%(default)s]")  # fmt: skip
    parser.add_argument("--complete", action="store_true",
                        help="mark the labels as complete: what the teacher did not find is not "
                        "there")  # fmt: skip
    parser.add_argument("--limit", type=positive_int, metavar="N",
                        help="use only the first images")  # fmt: skip
    parser.add_argument("--measure", action="store_true",
                        help="compare the teacher with the masks of --annotations instead of "
                        "labelling")  # fmt: skip
    parser.add_argument("--categories", type=_numbers, metavar="ID[,ID…]",
                        help="ids of the categories to teach [all the teacher knows]")  # fmt: skip
    add_cluster(parser)
    parser.set_defaults(run=run)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers") from None


def _sides(text: str) -> tuple[int, ...]:
    sides = tuple(_numbers(text))
    if not all(32 <= side <= 4096 for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r}: a short side is from 32 to 4096 pixels")
    return sides


def run(options: argparse.Namespace) -> int:
    """Teach, or measure the teacher."""
    from ..teach.merge import Rules
    from ..teach.registry import make_teacher

    rules = Rules(options.accept, options.doubt, options.mask_score)
    if options.measure and not options.annotations:
        raise ValueError("--measure needs --annotations: masks to compare with")
    if not options.measure and not options.out:
        raise ValueError("--out is missing: the COCO JSON to write")
    if options.measure and options.ray:
        raise ValueError("--measure runs on this machine: leave out --ray, or --measure")
    if options.out:
        check_output(options.out, *filter(None, [options.annotations]))
    teacher = make_teacher(options.teacher, options.short_sides, options.flip)
    return _measure(options, teacher) if options.measure else _teach(options, teacher, rules)


def _teach(options: argparse.Namespace, teacher, rules: Rules) -> int:
    from ..jobs.fingerprint import fingerprint
    from ..teach.run import RemoteTeacher, read_dataset, teach_dataset

    data = _limited(read_dataset(options.annotations, options.images, teacher.categories), options)
    kind, _, source = options.teacher.partition(":")
    record = {
        "source": f"{kind}:{Path(source).name}" if source else kind,  # not where it lies
        "short_sides": options.short_sides and list(options.short_sides),
        "flip": options.flip,
        "weights_sha256": fingerprint(options.teacher),
    }
    cluster, remote = chosen_cluster(options), None
    if cluster:
        made = (options.teacher, options.short_sides, options.flip, record["weights_sha256"])
        remote = RemoteTeacher(cluster, *made)
    with _bar(len(data["images"]), "teach") as bar:
        counts = teach_dataset(
            teacher, data, options.images, options.out, rules, record, options.complete,
            options.categories,
            lambda done, total: bar.update(done - bar.n), remote,
        )  # fmt: skip
    print(f"{options.out}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    return 0


def _measure(options: argparse.Namespace, teacher) -> int:
    from edgemask.evaluate import load_annotations
    from edgemask.outputs import write_json

    from ..teach.measure import measure_teacher

    truth = _limited(load_annotations(options.annotations), options)
    with _bar(len(truth["images"]), "measure") as bar:
        report = measure_teacher(teacher, truth, options.images, options.categories, bar.update)
    for title, key in (("found by itself", "detection"), ("in the true boxes", "prompted")):
        for kind, metrics in report[key].items():
            if key == "prompted" and kind == "bbox":
                continue
            values = (f"{k} {_shown(v)}" for k, v in metrics.items() if k.startswith("AP"))
            print(f"{title:18} {kind:5} {'  '.join(values)}")
    sizes, counts = report["mask_iou"], report["mask_iou"]["count"]
    print("mean mask IoU in the true boxes  "
          + "  ".join(f"{k} {_shown(sizes[k])} ({counts[k]})" for k in counts))  # fmt: skip
    if options.out:
        write_json(options.out, report)
    return 0


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _limited(data: dict, options: argparse.Namespace) -> dict:
    if not options.limit:
        return data
    images = data["images"][: options.limit]
    kept = {image["id"] for image in images}
    annotations = [a for a in data["annotations"] if a["image_id"] in kept]
    return data | {"images": images, "annotations": annotations}


def _bar(total: int, title: str):
    from tqdm import tqdm

    return tqdm(total=total, desc=title, **bar_options(sys.stderr), unit="image", delay=2)
