"""What the verbs share: messages, the progress bar, options and the segmenter."""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from edgemask.segmenter import Segmenter
    from edgemask.sources.base import Frame

__all__ = [
    "Progress",
    "add_model_options",
    "add_reconnect",
    "add_score",
    "make_segmenter",
    "make_segmenters",
    "model_record",
    "positive_int",
    "report_error",
    "report_state",
    "report_warning",
    "score",
    "thread_count",
    "unused_name",
    "whole_number",
]


debug = False
"""Whether errors are followed by their traceback; set by ``--debug``."""


def report_error(message: str) -> None:
    """Print one line ``edgemask: error: …`` to stderr, and the traceback if that was asked for."""
    _say(f"error: {message}")
    if debug and sys.exc_info()[0] is not None:
        traceback.print_exc()


def report_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print one line ``edgemask: warning: …`` to stderr; stands in for warnings.showwarning."""
    _say(f"warning: {message}")


def report_state(message: str) -> None:
    """Print one line ``edgemask: …`` to stderr: news that may be good or bad."""
    _say(message)


def _say(text: str) -> None:
    """Print one line to stderr; where that takes nothing, as a log on a full disk, work goes on."""
    with contextlib.suppress(OSError):
        print(f"edgemask: {' '.join(text.split())}", file=sys.stderr, flush=True)


def positive_int(text: str) -> int:
    """Parse an option that is a whole number from 1."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return min(value, sys.maxsize)  # what Python counts to


def whole_number(text: str) -> int:
    """Parse an option that is a whole number from 0."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def counted(number: int, noun: str) -> str:
    """Return how many there are, as a phrase: ``1 frame``, ``2 frames``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def film_name(text: str) -> Path:
    """Parse an option that is the name of a film to write."""
    if Path(text).suffix.lower() != ".mp4":
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .mp4")
    return Path(text)


def score(text: str) -> float:
    """Parse an option that is a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def thread_count(text: str) -> int:
    """Parse a number of threads, for argparse; the bound is that of the configuration."""
    from edgemask.settings import MOST_THREADS

    value = positive_int(text)
    if value > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{text} threads are too many: give 1 to {MOST_THREADS}")
    return value


def add_reconnect(parser: argparse.ArgumentParser) -> None:
    """Add --reconnect."""
    parser.add_argument(
        "--reconnect",
        metavar="N",
        type=whole_number,
        default=10,
        help="attempts in a row to reopen a camera or stream that has stopped; 0 gives up at once "
        "(default: 10, which takes two and a half minutes)",
    )


def add_score(parser: argparse.ArgumentParser) -> None:
    """Add --score and --max-detections."""
    parser.add_argument(
        "--score",
        type=score,
        default=0.5,
        help="lowest score of a reported instance, 0 to 1 (default: 0.5)",
    )
    parser.add_argument(
        "--max-detections",
        metavar="N",
        type=positive_int,
        default=20,
        help="maximum number of instances per image (default: 20)",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add --model, --short-side and --threads."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="PACK",
        default="people",
        help="name of a bundled model, or path to a model pack (default: people)",
    )
    group.add_argument(
        "--short-side",
        metavar="PIXELS",
        type=positive_int,
        help="short side of the network's input; larger is slower and finds smaller instances "
        "(default: the one the model was trained for)",
    )
    group.add_argument(
        "--threads",
        metavar="N",
        type=thread_count,
        help="threads for the network, 1 to 64 (default: one per CPU that this process may use)",
    )


def make_segmenter(
    options: argparse.Namespace, score_threshold: float, max_detections: int
) -> Segmenter:
    """Build the segmenter that the options of :func:`add_model_options` describe."""
    from edgemask.segmenter import Segmenter

    return Segmenter(
        options.model,
        threads=options.threads,
        score_threshold=score_threshold,
        max_detections=max_detections,
        short_side=options.short_side,
    )


def make_segmenters(
    options: argparse.Namespace,
    score_threshold: float,
    max_detections: int,
    parallel: int | None = None,
) -> list[Segmenter]:
    """Build as many segmenters as frames are worked on at the same time; they share the threads.

    Two, if there are threads for both: steps between the networks, and layers that are too small
    to be shared, then overlap with another frame's.
    """
    from edgemask.interpreter import default_threads
    from edgemask.modelpack import load_pack

    threads = options.threads or default_threads()
    count = parallel or min(2, threads)
    wanted = argparse.Namespace(
        model=load_pack(options.model),
        threads=max(1, threads // count),
        short_side=options.short_side,
    )
    return [make_segmenter(wanted, score_threshold, max_detections) for _ in range(count)]


def model_record(segmenter: Segmenter) -> Mapping[str, str]:
    """Return what identifies the model in a result file."""
    pack = segmenter.pack
    return {"name": pack.name, "version": pack.version, "sha256": pack.sha256}


def unused_name(uri: str, frame: Frame, suffix: str) -> Path:
    """Return a name in this folder for what is made of a source, which no file has.

    ``film.jsonl`` after the frame ``film-000012``, or else after the source; then ``film-2.jsonl``.
    """
    from edgemask.takes.times import times_path

    series = frame.name.removesuffix(f"-{frame.index:06d}")
    stem = (series if series != frame.name else Path(uri).stem) or "take"
    stem = "stdin" if stem == "-" else stem
    found, number = Path(f"{stem}{suffix}"), 1
    # A film has its times beside it, and an older film may have left its own.
    while found.exists() or (suffix == ".mp4" and times_path(found).exists()):
        number += 1
        found = Path(f"{stem}-{number}{suffix}")
    return found


class Progress:
    """A progress bar (tqdm) on a terminal, for work of more than two seconds; nothing otherwise.

    Parameters
    ----------
    label : str
    total : int
        Steps of the work; 0 if that is not known, and then they are only counted.
    stream : text file, optional
        stderr by default.
    delay : float
        Seconds until the bar appears.
    """

    def __init__(
        self, label: str, total: int, *, stream: TextIO | None = None, delay: float = 2.0
    ) -> None:
        from tqdm import tqdm

        from edgemask.terminal import bar_options

        stream = sys.stderr if stream is None else stream
        self._bar = tqdm(
            total=total or None, desc=label, delay=delay, leave=False, **bar_options(stream)
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def update(self, done: int, total: int | None = None) -> None:
        """Say how many steps are done (of how many, if that has changed)."""
        if total is not None:
            self._bar.total = total
        self._bar.update(done - self._bar.n)

    def clear(self) -> None:
        """Take the bar away, so that a line can be printed in its place."""
        self._bar.clear()
