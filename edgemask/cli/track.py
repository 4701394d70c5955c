"""``edgemask track``: follow the instances of a video or camera, and keep what was seen."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgemask.cli import common, results
from edgemask.cli.frames import Frames
from edgemask.errors import OutputError, SourceError

if TYPE_CHECKING:
    from edgemask.cli.film import Film
    from edgemask.sources.base import Source

HELP = "follow the instances of a video or camera from frame to frame"
EXAMPLE = "edgemask track film.mp4 --out film.jsonl"

_SECOND = 1_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "source",
        metavar="SRC",
        help="video file, folder of frames, camera:0, /dev/video0, rtsp://…, http://…, synthetic:",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="take to write, JSON Lines (default: NAME.jsonl, named after the source, in this "
        "folder); an existing file is never replaced",
    )
    parser.add_argument(
        "--overlay",
        metavar="FILM",
        type=common.film_name,
        help="also write a film, .mp4, with the tracks drawn over the frames; needs "
        "edgemask[video]; an existing file is never replaced",
    )
    parser.add_argument(
        "--frames",
        metavar="N",
        type=common.positive_int,
        help="maximum number of frames (default: a whole video; a camera until Ctrl-C)",
    )
    parser.add_argument(
        "--max-lost",
        metavar="SECONDS",
        type=_seconds,
        default=2.0,
        help="how long an instance may be out of sight and keep its track (default: 2)",
    )
    common.add_reconnect(parser)
    common.add_score(parser)
    common.add_model_options(parser)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return value


def run(options: argparse.Namespace) -> int:
    """Write a line for each frame; what there is stays when the run ends early."""
    from edgemask.overlay import draw
    from edgemask.parallel import segmented
    from edgemask.sources import shown
    from edgemask.takes.writer import TakeWriter
    from edgemask.tracking import FrameClock, Tracker

    name = shown(options.source)
    tracker = Tracker(round(options.max_lost * _SECOND))
    start, done, tracks = time.monotonic(), 0, 0
    for path in filter(None, (options.out, options.overlay)):
        if path.exists():
            raise OutputError(f"{path} exists already: choose another name")
    if options.out and options.overlay and options.out.resolve() == options.overlay.resolve():
        raise OutputError(f"{options.out} is the name of both take and film: choose another")
    with contextlib.ExitStack() as stack:
        frames = stack.enter_context(Frames(options.source, options.reconnect))
        source = frames.source
        # Of a camera one at a time: others would wait, and grow old.
        segmenters = common.make_segmenters(
            options, options.score, options.max_detections, 1 if source.live else None
        )
        model = common.model_record(segmenters[0])
        expected = min(source.length or sys.maxsize, options.frames or sys.maxsize)
        progress = common.Progress("tracking", expected if expected < sys.maxsize else 0)
        frames.progress = stack.enter_context(progress)
        film = stack.enter_context(_film(options.overlay, source))
        clock = FrameClock(source.live)
        take, interrupted = None, False
        try:
            wanted = itertools.islice(frames, options.frames)
            for frame, instances in stack.enter_context(
                contextlib.closing(segmented(wanted, segmenters))
            ):
                if take is None:
                    path = options.out or common.unused_name(options.source, frame, ".jsonl")
                    take = stack.enter_context(TakeWriter(path))
                now_ns = clock(frame.sensor_ns, time.monotonic_ns())
                instances = tracker.update(instances, now_ns)
                take.add(frame, instances, model)
                done += 1
                tracks = max([tracks, *instances.track_ids.tolist()])
                progress.update(done)
                if source.live:
                    print(f"{frame.name}: {results.describe(instances)}", flush=True)
                if film is not None:
                    film.add(draw(frame.rgb, instances, out=frame.rgb), now_ns)
        except KeyboardInterrupt:
            interrupted = True  # how a camera is ended
    if take is None:
        if interrupted:
            raise KeyboardInterrupt
        raise SourceError(f"{name} has no frames: check what sends it")
    seconds = time.monotonic() - start
    counted = f"{common.counted(done, 'frame')}, {common.counted(tracks, 'track')}"
    written = ", ".join(str(path) for path in (take.path, options.overlay) if path)
    print(f"{name}: {counted} -> {written} ({seconds:.1f} s)")
    return 130 if interrupted else int(frames.failures > 0)


def _film(path: Path | None, source: Source) -> contextlib.AbstractContextManager[Film | None]:
    if path is None:
        return contextlib.nullcontext()
    from edgemask.cli.film import Film

    return Film(path, getattr(source, "rate", None))
