"""``edgemask predict``: segment images, videos, cameras and streams."""

from __future__ import annotations

import argparse
import contextlib
import errno
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgemask.cli import common, results
from edgemask.errors import InputError, OutputError, RuntimeUnavailable, SourceError

if TYPE_CHECKING:
    from edgemask.cli.film import Film
    from edgemask.instances import Instances
    from edgemask.outputs import OutputNames
    from edgemask.segmenter import Segmenter
    from edgemask.sources.base import Frame, Source

HELP = "find and outline the instances in images, videos and camera pictures"
EXAMPLE = "edgemask predict photo.jpg holiday/ --format overlay,json --out results"

_LISTED = 20
_LARGE = 16  # megapixels; of what is larger one at a time has to do: 24 take 365 MB
_HOPELESS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_EXPECTED = (SourceError, InputError, OutputError, RuntimeUnavailable, MemoryError)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "sources",
        metavar="SRC",
        nargs="+",
        help="image or video file, folder, glob pattern, camera:0, /dev/video0, rtsp://…, "
        "http://…, synthetic:, or - for stdin",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="edgemask-results",
        help="folder for the results, created if missing (default: edgemask-results)",
    )
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        action="append",
        type=results.formats,
        help="overlay (PNG; MP4 for a video file), json, coco (one coco.json for the run) or masks "
        "(PNG of instance numbers); repeat it or separate with commas (default: overlay)",
    )
    parser.add_argument(
        "--frames",
        metavar="N",
        type=common.positive_int,
        help="maximum number of frames of each video, camera or stream (default: a whole video; "
        "a camera until Ctrl-C)",
    )
    common.add_reconnect(parser)
    common.add_score(parser)
    common.add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Segment every source; one that fails is named and does not stop the others."""
    from edgemask.outputs import OutputNames

    wanted = {name for group in options.format or [["overlay"]] for name in group}
    paths, streams, failures = _expand(options.sources)
    reserved = ["coco"] if "coco" in wanted else []
    names = OutputNames(options.out, [*paths, *streams], reserved)
    work = _Run(options, wanted, names, failures, alone=len(paths) < 2)
    try:
        work.images(paths, numbered=not streams)
        for uri in streams:
            work.stream(uri, options.frames, options.reconnect)
    finally:
        # What has been found so far is kept when the run is interrupted.
        if paths or streams:
            work.results.finish()
    if len(paths) > _LISTED or "coco" in wanted:
        of = "" if streams else f"{work.done} of "
        counted = of + common.counted(work.done if streams else len(paths), "image")
        instances = common.counted(work.total, "instance")
        seconds = time.monotonic() - work.start
        print(f"{counted}, {instances} -> {options.out} ({seconds:.1f} s)")
    return 1 if work.failures else 0


def _expand(sources: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Return the image files, the URIs of everything else, and how many sources had nothing."""
    from edgemask.sources import expand

    paths: dict[str, None] = {}
    streams: dict[str, None] = {}
    failures = 0
    for source in sources:
        try:
            found, others = expand(source)
            paths.update(dict.fromkeys(found))
            streams.update(dict.fromkeys(others))
        except (SourceError, InputError) as error:
            common.report_error(str(error))
            failures += 1
    return list(paths), list(streams), failures


class _Run:
    """One run: its results, and what there is to say about them."""

    def __init__(
        self,
        options: argparse.Namespace,
        wanted: set[str],
        names: OutputNames,
        failures: int,
        alone: bool,
    ) -> None:
        self._options, self._alone = options, alone
        self.names, self.failures = names, failures
        self._made = self._make()  # here, so that a model that does not work is said once
        self.results = results.Results(common.model_record(self._made[0]), wanted, names)
        self.start = time.monotonic()
        self.done = self.total = 0
        self._memory = threading.Lock()  # held by the one photograph that may be a large one
        self._last_id = 0

    def _segmenters(self, alone: bool) -> Sequence[Segmenter]:
        """Return one that has all threads, or several that share them."""
        if alone != self._alone:
            self._made.clear()  # their memory first
            self._alone = alone
            self._made = self._make()
        return self._made

    def _make(self) -> list[Segmenter]:
        options = self._options
        return common.make_segmenters(
            options, options.score, options.max_detections, 1 if self._alone else None
        )

    @contextlib.contextmanager
    def _naming(self, source: str, progress: common.Progress | None = None) -> Iterator[None]:
        """Report what goes wrong with a source, and go on, unless nothing else can work either."""
        try:
            yield
        except _EXPECTED as error:
            if isinstance(error, OutputError) and error.errno in _HOPELESS:
                raise
            if progress is not None:
                progress.clear()
            message = str(error) or "not enough memory: make the image smaller first"
            common.report_error(message if source in message else f"{source}: {message}")
            self.failures += 1

    def images(self, paths: Sequence[str], numbered: bool) -> None:
        """Segment image files, and print a line for each if they are few."""
        from edgemask.outputs import image_ids
        from edgemask.parallel import in_order

        # An image may be named by its number only where no frame of a video can have the same.
        ids = image_ids(paths) if numbered else range(1, len(paths) + 1)
        self._last_id = len(paths)
        named = zip(paths, ids, strict=True)
        jobs = ((path, self.names.stem(path), image_id) for path, image_id in named)
        segmenters = self._segmenters(alone=len(paths) < 2)
        with (
            common.Progress("segmenting", len(paths)) as progress,
            contextlib.closing(in_order(jobs, segmenters, self._photo)) as photos,
        ):
            for count, ((path, _, image_id), result) in enumerate(photos, 1):
                with self._naming(path, progress):
                    if isinstance(result, Exception):
                        raise result
                    instances, line = result
                    self._count(instances, path, image_id)
                    if len(paths) <= _LISTED:
                        progress.clear()
                        print(f"{path}: {line}", flush=True)
                progress.update(count)

    def _photo(
        self, segmenter: Segmenter, job: tuple[str, str, int]
    ) -> tuple[Instances, str] | Exception:
        """Segment an image file and write its results, in whatever thread."""
        from edgemask.images import load_image, megapixels

        path, stem, _ = job
        try:
            with self._memory if megapixels(path) > _LARGE else contextlib.nullcontext():
                rgb = load_image(path)
                instances = segmenter(rgb)
                return instances, self.results.write(rgb, instances, path, stem)
        except _EXPECTED as error:  # in place of the result: the images after it go on
            return error

    def stream(self, uri: str, most: int | None, attempts: int) -> None:
        """Segment the frames of a camera, video or stream, and print a line for each if it is live.

        The results of a single image from standard input are named like those of a file; all others
        go into a folder of the source, by their index. The overlays of a video file become a film.
        A live source that stops is opened again, `attempts` times without a frame at most.
        """
        from edgemask.live.reopen import BACKOFF, Backoff, reopening
        from edgemask.parallel import segmented
        from edgemask.sources import open_source, shown

        start, done, total = time.monotonic(), self.done, self.total
        name, folder, film = shown(uri), "", None
        # Messages have the name of the source, not its options.
        brief = name.partition("?")[0]
        with self._naming(brief), open_source(uri) as source, contextlib.ExitStack() as stack:
            expected = most if source.length is None else min(source.length, most or source.length)
            few = expected is not None and expected <= _LISTED
            with common.Progress("segmenting", expected or 0) as progress:

                def report(line: str) -> None:
                    progress.clear()
                    common.report_warning(line)

                frames: Iterator[Frame] = iter(source)
                if source.live:
                    backoff = Backoff(*BACKOFF, attempts)
                    frames = reopening(source, lambda: open_source(uri), backoff, report)
                    stack.callback(frames.close)
                # Of a camera one at a time: others would wait, and grow old.
                segmenters = self._segmenters(alone=source.live or uri == "-")
                found = segmented(itertools.islice(frames, most), segmenters)
                stack.enter_context(contextlib.closing(found))
                for count, (frame, instances) in enumerate(found, 1):
                    series = frame.name.removesuffix(f"-{frame.index:06d}")
                    if not folder and series != frame.name:
                        # The suffix is taken off again; the name itself may have dots in it.
                        folder = self.names.stem(f"{series}.frames")
                        film = stack.enter_context(self._film(source, folder))
                    stem = f"{folder}/{frame.index:06d}" if folder else self.names.stem(series)
                    self._last_id += 1
                    line = self.results.write(
                        frame.rgb, instances, frame.name, stem, _times(frame), film
                    )
                    self._count(instances, frame.name, self._last_id)
                    progress.update(count)
                    if source.live or few or not folder:
                        progress.clear()
                        print(f"{frame.name if folder else name}: {line}", flush=True)
            if self.done == done:
                raise SourceError(f"{brief} has no frames: check what sends it")
        if folder and (film or not few):
            where = film.path if film else self.names.folder / folder
            print(
                f"{name}: {common.counted(self.done - done, 'frame')}, "
                f"{common.counted(self.total - total, 'instance')} -> {where} "
                f"({time.monotonic() - start:.1f} s)"
            )

    def _film(self, source: Source, stem: str) -> contextlib.AbstractContextManager[Film | None]:
        """Return the film for the overlays of a video file, None in place of one for the others.

        A camera may run for days, and a film is of no use before its end.
        """
        from edgemask.cli.film import Film
        from edgemask.sources.video import VideoFile

        if not isinstance(source, VideoFile) or "overlay" not in self.results.wanted:
            return contextlib.nullcontext()
        return Film(self.names.path(f"{stem}.overlay.mp4"), source.rate)

    def _count(self, instances: Instances, source: str, image_id: int) -> None:
        self.results.keep(instances, source, image_id)
        self.done += 1
        self.total += len(instances)


def _times(frame: Frame) -> dict[str, Any]:
    """Return what else is known of a frame, for its record."""
    return {"index": frame.index, "sensor_ns": frame.sensor_ns, "wall_ns": frame.wall_ns}
