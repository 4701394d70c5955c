"""``edgemask eval``: average precision on COCO-format data."""

from __future__ import annotations

import argparse

from edgemask.cli import common

HELP = "measure box, mask and keypoint AP on annotated images"
EXAMPLE = (
    "edgemask eval --annotations instances_val2017.json --images val2017 --save predictions.json"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "--annotations", metavar="FILE", required=True, help="COCO annotation file (JSON)"
    )
    parser.add_argument(
        "--images", metavar="DIR", required=True, help="folder with the annotated images"
    )
    parser.add_argument("--save", metavar="FILE", help="also write the predictions as COCO results")
    common.add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Segment every annotated image and print the averages over the model's classes."""
    from edgemask import evaluate as evaluation
    from edgemask.errors import SourceError
    from edgemask.outputs import check_output, write_json

    if options.save:
        check_output(options.save)
    annotations = evaluation.load_annotations(options.annotations)
    evaluation.require_pycocotools()  # before the hours that the images may take
    segmenters = common.make_segmenters(
        options, evaluation.SCORE_THRESHOLD, evaluation.MAX_DETECTIONS
    )
    pack = segmenters[0].pack
    listed = {category["id"] for category in annotations["categories"]}
    classes = [class_id for class_id in pack.class_ids if class_id in listed]
    if not classes:
        raise SourceError(
            f"{options.annotations} has none of the classes {list(pack.class_ids)} of "
            f"the model {pack.name}: give annotations with the same category ids"
        )
    kinds = ["bbox", "segm"] + (["keypoints"] if pack.keypoint else [])
    evaluation.check_annotations(annotations, kinds)  # before the images, too
    for category in annotations["categories"]:
        name, own = category.get("name"), pack.class_names.get(category["id"])
        if name and own and str(name).casefold() != own.casefold():
            common.report_warning(
                f"category {category['id']} is {name!r} in {options.annotations} and {own!r} in "
                "the model: compared anyway; if they are different things, change the ids"
            )
    with common.Progress("evaluating", len(annotations["images"])) as progress:
        predictions = evaluation.predict_dataset(
            segmenters, annotations, options.images, progress.update
        )
    if options.save:
        write_json(options.save, predictions)
    report = evaluation.evaluate(predictions, annotations, kinds, category_ids=classes)
    names = ", ".join(pack.class_names[class_id] for class_id in classes)
    shown = names if len(names) <= 60 else f"{len(classes)} classes"
    print(f"{common.counted(len(annotations['images']), 'image')}, {shown}, model {pack.name}")
    for labels, metrics in (
        ({"bbox": "box", "segm": "mask"}, evaluation.METRICS),
        ({"keypoints": "points"}, evaluation.KEYPOINT_METRICS),
    ):
        if labels.keys() & report.keys():
            print()
            print("      " + "".join(f"{name:>7s}" for name in metrics))
        for kind, label in labels.items():
            values = report.get(kind, {}).values()
            if values:
                row = "".join("      -" if v is None else f"{v:7.3f}" for v in values)
                print(f"{label:<6s}{row}")
    if options.save:
        print()
        print(f"predictions: {options.save}")
    return 0
