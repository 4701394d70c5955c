"""``edgemask record``: a film of a camera, and the time of every frame."""

from __future__ import annotations

import argparse
import contextlib
import time

from edgemask.cli import common
from edgemask.cli.frames import Frames
from edgemask.errors import SourceError

HELP = "record a camera as a film, with the time of every frame"
EXAMPLE = "edgemask record 'camera:0?size=640x480&fps=30' --seconds 60 --out take.mp4"

_SECOND = 1_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "source",
        metavar="SRC",
        help="camera:0, /dev/video0, rtsp://…, http://…, or any other source",
    )
    parser.add_argument(
        "--out",
        metavar="FILM",
        type=common.film_name,
        help="film to write, .mp4 (default: NAME.mp4, named after the source, in this folder); the "
        "times go beside it, into NAME.frames.csv; existing files are never replaced",
    )
    parser.add_argument(
        "--seconds",
        metavar="N",
        type=common.positive_int,
        help="length of the film (default: until Ctrl-C)",
    )
    common.add_reconnect(parser)


def run(options: argparse.Namespace) -> int:
    """Encode frame by frame; what there is can be played when it ends early, for any reason."""
    from edgemask.sources import shown
    from edgemask.takes.recording import Recording
    from edgemask.tracking import FrameClock

    name, count, now_ns = shown(options.source), 0, 0
    recording, interrupted = None, False
    with contextlib.ExitStack() as stack:
        frames = stack.enter_context(Frames(options.source, options.reconnect))
        progress = stack.enter_context(common.Progress("recording", options.seconds or 0))
        frames.progress = progress
        source = frames.source
        clock = FrameClock(source.live)
        try:
            for frame in frames:
                if recording is None:
                    path = options.out or common.unused_name(options.source, frame, ".mp4")
                    recording = Recording(path, getattr(source, "rate", None))
                    stack.enter_context(recording)
                now_ns = clock(frame.sensor_ns, time.monotonic_ns())
                progress.update(now_ns // _SECOND)
                if options.seconds is not None and now_ns >= options.seconds * _SECOND:
                    break
                recording.add(frame, now_ns)
                count += 1
        except KeyboardInterrupt:
            interrupted = True  # how a camera is ended
        dropped = frames.dropped
    if recording is None:
        if interrupted:
            raise KeyboardInterrupt
        raise SourceError(f"{name} has no frames: check what sends it")
    lost = f" ({dropped} more came too fast to be encoded)" if dropped else ""
    counted = common.counted(count, "frame")
    print(f"{name}: {counted} in {now_ns / _SECOND:.1f} s{lost} -> {recording.path}")
    return 130 if interrupted else int(frames.failures > 0)
