"""``edgemask export``: convert a take for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgemask.cli import common
from edgemask.errors import OutputError

if TYPE_CHECKING:
    from edgemask.takes.reader import Record

HELP = "convert a take of edgemask track to CSV, COCO, OpenPose or silhouettes"
EXAMPLE = "edgemask export film.jsonl --to csv --out film.csv"

FORMATS = {"csv": ".csv", "coco": ".coco.json", "openpose": "_json", "silhouettes": "_silhouettes"}
"""What the name of the take is followed by in that of the result; the last two are folders."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("take", metavar="TAKE", type=Path, help="file that edgemask track wrote")
    parser.add_argument(
        "--to",
        required=True,
        choices=FORMATS,
        help="csv: a row for each instance in each frame; coco: a dataset for annotation tools and "
        "training; openpose: a JSON file for each frame, for Pose2Sim; silhouettes: a PNG for each "
        "instance in each frame",
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        type=Path,
        help="file or, for openpose and silhouettes, folder to write (default: beside the take, "
        "TAKE.csv, TAKE.coco.json, TAKE_json, TAKE_silhouettes)",
    )


def run(options: argparse.Namespace) -> int:
    """Write it."""
    from edgemask.takes.coco import write_coco
    from edgemask.takes.openpose import write_openpose
    from edgemask.takes.reader import read_take
    from edgemask.takes.silhouettes import write_silhouettes
    from edgemask.takes.tables import write_csv

    take: Path = options.take
    out = options.out or take.with_name(f"{take.stem}{FORMATS[options.to]}")
    if out.resolve() == take.resolve():
        raise OutputError(f"{out} is the take itself: choose another name")
    into_folder = options.to in ("openpose", "silhouettes")
    if into_folder and out.is_dir() and any(out.iterdir()):
        # Files of an earlier take would be mixed with those of this one.
        raise OutputError(f"{out} is not empty: choose another folder")
    size = take.stat().st_size if take.is_file() else 0
    with common.Progress("exporting", size * (3 if options.to == "coco" else 1)) as progress:
        before = frames = 0

        def read() -> Iterator[Record]:
            nonlocal before, frames
            start = before
            for record in read_take(take, lambda done: progress.update(start + done)):
                frames += 1
                yield record
            before += size

        if options.to == "csv":
            write_csv(read(), out)
        elif options.to == "coco":
            write_coco(read, out)
        elif options.to == "openpose":
            print(f"{common.counted(write_openpose(read(), out, take.stem), 'file')} -> {out}")
            return 0
        else:
            print(f"{common.counted(write_silhouettes(read(), out), 'file')} -> {out}")
            return 0
    print(f"{take} -> {out}")
    if not frames:
        common.report_warning(f"{take} has no frames")
    return 0
