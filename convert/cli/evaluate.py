"""``edgemask-convert evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edgemask.cli.common import positive_int
from edgemask.terminal import bar_options

from .common import add_cluster, check_output, chosen_cluster, formatted, write_text

EXAMPLE = """example:
  edgemask-convert evaluate runs/people/model.npz --annotations dev.json --images images

Measures a checkpoint (float) or a pack (int8) through edgemask's own pipeline. With --save, a run
that was stopped resumes when the same command is given again.
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "evaluate", "measure COCO AP of a checkpoint or a pack", EXAMPLE)
    parser.add_argument("model", type=Path, help="checkpoint .npz or pack .zip")
    parser.add_argument("--annotations", required=True, type=Path, help="COCO JSON")
    parser.add_argument("--images", required=True, type=Path, help="folder of its images")
    parser.add_argument("--short-side", type=positive_int, metavar="N",
                        help="shorter side of the input [the model's]")  # fmt: skip
    parser.add_argument("--limit", type=positive_int, metavar="N",
                        help="use only the first images")  # fmt: skip
    parser.add_argument("--save", type=Path, help="write the figures as JSON")
    add_cluster(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Evaluate and print a table."""
    from tqdm import tqdm

    from ..evaluation.measure import load_truth, measure_results
    from ..evaluation.predictions import load_pipeline, model_sha256, predict

    cluster = chosen_cluster(options)
    if options.save:
        check_output(options.save, options.model, options.annotations)
    truth = load_truth(options.annotations, options.limit)
    pipeline = load_pipeline(options.model)
    measure_results([], truth, pipeline.manifest)  # whether it can, before the hours it may take
    keep = options.save and options.save.with_name(options.save.name + ".partial")
    with tqdm(total=len(truth["images"]), desc="evaluate", **bar_options(sys.stderr)) as bar:
        results = predict(
            options.model, truth, options.images, options.short_side, keep,
            cluster, pipeline, lambda done, total: bar.update(done - bar.n),
        )  # fmt: skip
    report = measure_results(results, truth, pipeline.manifest)
    for kind, metrics in report.items():
        values = "  ".join(f"{k} {'–' if v is None else f'{v:.3f}'}" for k, v in metrics.items())
        print(f"{kind:9} {values}")
    if options.save:
        record = {
            "model_sha256": model_sha256(options.model),
            "dataset": options.annotations.name,
            "images": len(truth["images"]),
            "short_side": options.short_side or pipeline.manifest["input"]["short_side"],
        }
        for kind, metrics in report.items():
            record[kind] = {k: None if v is None else round(v, 5) for k, v in metrics.items()}
        write_text(options.save, json.dumps(record, indent=1))
        keep.unlink()
    return 0
