"""Shared by the verbs: help layout, choice of images, tables."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from edgemask import outputs
from edgemask.coco_types import check_images
from edgemask.evaluate import load_annotations
from edgemask.terminal import bar_options

if TYPE_CHECKING:
    from ..jobs.cluster import Cluster

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def formatted(verbs, name: str, text: str, example: str) -> argparse.ArgumentParser:
    """A subparser whose help ends with an example that works."""
    return verbs.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`chosen_cluster` reads."""
    parser.add_argument("--ray", metavar="ADDRESS",
                        help="spread the images over a Ray cluster: auto, HOST:PORT, "
                        "ray://HOST:PORT; needs extra [ray]")  # fmt: skip
    parser.add_argument("--ray-cpus", type=int, default=2, metavar="N",
                        help="CPUs for each Ray worker [%(default)s]")  # fmt: skip


def chosen_cluster(options: argparse.Namespace) -> Cluster | None:
    """The cluster of ``--ray``, or None."""
    from ..jobs.cluster import Cluster

    if options.ray_cpus < 1:
        raise ValueError(f"--ray-cpus is {options.ray_cpus}: a worker needs one CPU or more")
    return Cluster(options.ray, options.ray_cpus) if options.ray else None


def watch(items, title: str):
    """Go over a sequence under a progress bar: after two seconds, and on a terminal only."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        return items
    return tqdm(items, title, leave=False, delay=2, **bar_options(_terminal()))


@functools.cache
def _terminal() -> IO[str]:
    """Return the terminal behind stderr, for bars while what C++ writes there is held back."""
    return open(os.dup(sys.stderr.fileno()), "w", encoding="utf-8")


def check_output(path: Path, *inputs: Path | None) -> None:
    """Find out before the work, not after it, whether a file can be written.

    Raises
    ------
    OutputError
        A folder has its name, or nothing can be written in its folder, which is made.
    ValueError
        It is one of the inputs.
    """
    if path.resolve() in [given.resolve() for given in inputs if given is not None]:
        raise ValueError(f"{path} would be overwritten while it is read: give another name")
    outputs.check_output(path)


def write_text(path: Path, text: str) -> None:
    """Write a text completely or not at all; an older file stays until then.

    Raises
    ------
    OutputError
        See :func:`edgemask.outputs.write_file`.
    """
    outputs.write_file(path, lambda stream: stream.write(text.encode()))


def calibration_paths(folder: Path, annotations: Path | None, count: int) -> list[Path]:
    """``count`` images of a folder, spread evenly, the same ones every time.

    Raises
    ------
    ValueError
        If there is none.
    """
    if annotations is not None:
        listed = load_annotations(annotations)["images"]
        check_images(listed, ("file_name",))
        names = [im["file_name"] for im in listed]
        paths = [folder / name for name in names if (folder / name).exists()]
    else:
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder of images")
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"no images found in {folder}")
    chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return [paths[i] for i in chosen]
