"""``edgemask demo``: segment the bundled photograph."""

from __future__ import annotations

import argparse
import importlib.resources

from edgemask.cli import common

HELP = "segment a bundled photograph, to see that everything works"
EXAMPLE = "edgemask demo --out edgemask-demo"

_PHOTOGRAPH = "astronaut.jpg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="edgemask-demo",
        help="folder for the results, created if missing (default: edgemask-demo)",
    )
    common.add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Segment the photograph, write overlay and JSON, and print what was found and how fast."""
    from edgemask.bench.table import LABELS
    from edgemask.images import load_image
    from edgemask.outputs import OutputNames, write_json, write_png
    from edgemask.overlay import draw

    segmenter = common.make_segmenter(options, 0.5, 20)
    asset = importlib.resources.files("edgemask") / "assets" / _PHOTOGRAPH
    with asset.open("rb") as stream:
        rgb = load_image(stream)
    segmenter(rgb)  # the first run of a network is slower: memory is being laid out
    instances = segmenter(rgb)
    names = OutputNames(options.out, [])
    stem = names.stem(_PHOTOGRAPH)
    overlay, record = names.path(f"{stem}.overlay.png"), names.path(f"{stem}.json")
    model = common.model_record(segmenter)
    write_json(record, {"file_name": _PHOTOGRAPH, "model": model, **instances.to_dict()})
    write_png(overlay, draw(rgb, instances))

    print(f"{_PHOTOGRAPH} (NASA, public domain) with the model {model['name']} {model['version']}")
    print()
    print("   #  class             score  box (x0 y0 x1 y1)         pixels")
    for n, (name, score, box, area) in enumerate(
        zip(
            instances.class_names,
            instances.scores.tolist(),
            instances.boxes.tolist(),
            instances.masks.areas.tolist(),
            strict=True,
        ),
        1,
    ):
        corners = " ".join(f"{value:5.0f}" for value in box)
        print(f"{n:4d}  {name:<16s}  {score:5.2f}  {corners:<24s}  {area:7d}")
    if not len(instances):
        print("      nothing found")
    print()
    for stage, milliseconds in segmenter.timings.items():
        print(f"{LABELS.get(stage, stage):>19s}  {milliseconds:7.1f} ms")
    print()
    print(f"overlay: {overlay}")
    print(f"JSON:    {record}")
    return 0
