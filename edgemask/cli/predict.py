"""``edgemask predict``: segment image files."""

from __future__ import annotations

import argparse
import errno
import io
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgemask.cli import common
from edgemask.errors import InputError, OutputError, SourceError

if TYPE_CHECKING:
    from edgemask.instances import Instances
    from edgemask.outputs import OutputNames
    from edgemask.segmenter import Segmenter

HELP = "find and outline the instances in images"
EXAMPLE = "edgemask predict photo.jpg holiday/ 'scans/*.png' --out results --format overlay,json"

_STDIN = "-"
_FORMATS = ("overlay", "json", "coco", "masks")
_LISTED = 20
_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "sources", metavar="SRC", nargs="+", help="image file, folder, glob pattern, or - for stdin"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="edgemask-results",
        help="folder for the results, made if missing (default: edgemask-results)",
    )
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        action="append",
        type=_formats,
        help="overlay (PNG), json, coco (one coco.json for the run) or masks (PNG of instance "
        "numbers); repeat it or separate with commas (default: overlay)",
    )
    parser.add_argument(
        "--score",
        type=common.score,
        default=0.5,
        help="leave out what is less sure than this, 0 to 1 (default: 0.5)",
    )
    parser.add_argument(
        "--max-detections",
        metavar="N",
        type=common.positive_int,
        default=20,
        help="most instances per image (default: 20)",
    )
    common.add_model_options(parser)


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in _FORMATS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(_FORMATS)}")
    return names


def run(options: argparse.Namespace) -> int:
    """Segment every source; one that fails is named and does not stop the others."""
    from edgemask.outputs import OutputNames, image_ids, write_json

    start = time.monotonic()
    formats = {name for group in options.format or [["overlay"]] for name in group}
    segmenter = common.make_segmenter(options, options.score, options.max_detections)
    paths, failures = _expand(options.sources)
    names = OutputNames(options.out, [path for path in paths if path != _STDIN])
    coco: list[dict[str, Any]] = []
    total = 0
    try:
        with common.Progress("segmenting", len(paths)) as progress:
            for done, (path, image_id) in enumerate(zip(paths, image_ids(paths), strict=True), 1):
                try:
                    found, line = _predict(path, image_id, segmenter, formats, names, coco)
                except (SourceError, InputError, OutputError, MemoryError) as error:
                    if isinstance(error, OutputError) and error.errno in _HOPELESS:
                        raise
                    progress.clear()
                    message = str(error) or "not enough memory: make the image smaller first"
                    common.report_error(message if path in message else f"{path}: {message}")
                    failures += 1
                    continue
                finally:
                    progress.update(done)
                total += found
                if len(paths) <= _LISTED:
                    progress.clear()
                    print(line, flush=True)
    finally:
        # What has been found so far is kept when the run is interrupted.
        if "coco" in formats and paths:
            write_json(names.path("coco.json"), coco)
    if len(paths) > _LISTED or "coco" in formats:
        done = len(paths) - min(failures, len(paths))
        print(
            f"{done} of {len(paths)} images, {total} instances -> {options.out} "
            f"({time.monotonic() - start:.1f} s)"
        )
    return 1 if failures else 0


def _expand(sources: Sequence[str]) -> tuple[list[str], int]:
    """Return the files of all sources, and how many sources had none."""
    from edgemask.images import expand_source

    paths: dict[str, None] = {}
    failures = 0
    for source in sources:
        try:
            paths.update(dict.fromkeys([_STDIN] if source == _STDIN else expand_source(source)))
        except SourceError as error:
            common.report_error(str(error))
            failures += 1
    return list(paths), failures


def _predict(
    path: str,
    image_id: int,
    segmenter: Segmenter,
    formats: set[str],
    names: OutputNames,
    coco: list[dict[str, Any]],
) -> tuple[int, str]:
    """Segment one image and write its results; return the number of instances and a summary."""
    from edgemask.images import load_image
    from edgemask.outputs import coco_results, instance_ids, write_json, write_png
    from edgemask.overlay import draw

    rgb = load_image(io.BytesIO(sys.stdin.buffer.read()) if path == _STDIN else path)
    instances = segmenter(rgb)
    file_name = "stdin" if path == _STDIN else path
    stem = names.stem(file_name)
    written = []
    if "json" in formats:
        written.append(names.path(f"{stem}.json"))
        record = {"file_name": file_name, "model": common.model_record(segmenter)}
        write_json(written[-1], {**record, **instances.to_dict()})
    if "masks" in formats:
        written.append(names.path(f"{stem}.mask.png"))
        write_png(written[-1], instance_ids(instances))
    if "coco" in formats:
        coco.extend(coco_results(instances, image_id, file_name))
    if "overlay" in formats:
        written.append(names.path(f"{stem}.overlay.png"))
        # Last, and in place: a large photograph is not held in memory a second time.
        write_png(written[-1], draw(rgb, instances, out=rgb))
    where = f" -> {', '.join(map(str, written))}" if written else ""
    return len(instances), f"{path}: {describe(instances)}{where}"


def describe(instances: Instances) -> str:
    """Return what was found as a phrase: ``2 instances (person 0.97, person 0.61)``."""
    if not len(instances):
        return "nothing found"
    found = [
        f"{name} {score:.2f}"
        for name, score in zip(instances.class_names, instances.scores.tolist(), strict=True)
    ]
    shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
    return f"{len(found)} instance{'s' if len(found) > 1 else ''} ({shown})"
