"""``edgemask watch``: report who enters and leaves the zones of a configuration."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
from typing import TYPE_CHECKING, Any

from edgemask.cli import common
from edgemask.errors import InputError, SourceError

if TYPE_CHECKING:
    from edgemask.settings import Settings
    from edgemask.watch.watcher import Watcher

HELP = "report who enters and leaves zones of the image"
EXAMPLE = "edgemask watch camera:0 --config edgemask.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "source",
        metavar="SRC",
        nargs="?",
        help="camera:0, a stream, a video, a folder … (default: source.uri of the configuration)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        required=True,
        help="TOML file with one or more [[zone]] tables; see docs/watch.md",
    )


def run(options: argparse.Namespace) -> int:
    """Print a line of JSON per event until the source ends, or until SIGTERM or Ctrl-C."""
    from edgemask.live.engine import Engine
    from edgemask.live.notify import Notifier
    from edgemask.live.service import longest_pause, stop_signals, supervise
    from edgemask.settings import load_settings
    from edgemask.sinks import start_sinks
    from edgemask.watch.watcher import Watcher

    settings = load_settings(options.config)
    if not settings.zone:
        raise InputError(f"{options.config} has no zone; add a [[zone]] with name and polygon")
    uri = options.source or settings.source.uri
    notifier = Notifier()
    with stop_signals() as stopped, contextlib.ExitStack() as cleanup:
        segmenter = _segmenter(settings)
        engine = Engine(
            uri,
            segmenter,
            max_fps=settings.pace.max_fps,
            max_temp=settings.pace.max_temp,
            backoff=(0.5, longest_pause(notifier.watchdog_seconds)),
        )
        printer = _Printer(stopped)
        sinks = start_sinks(
            engine,
            settings,
            classes=segmenter.pack.class_names.values(),
            listeners=[printer],
            report=common.report_warning,
        )
        for sink in reversed(sinks):
            cleanup.callback(sink.stop)
        cleanup.callback(engine.stop)
        cleanup.callback(notifier.stopping)
        (watcher,) = (sink for sink in sinks if isinstance(sink, Watcher))
        engine.start()
        notifier.status("opening the source")
        notifier.ready()
        threading.Thread(target=_stop_after, args=(watcher, stopped), daemon=True).start()
        supervise(engine, uri, notifier, stopped, common.report_warning)
        if watcher.error is not None:
            raise watcher.error
        if printer.closed:
            raise BrokenPipeError
        source = engine.status()["source"]
        if engine.wait(0) and source["state"] != "ended":
            raise SourceError(source["error"])
    frames, errors = engine.status()["frames"], engine.status()["errors"]
    print(f"{watcher.events} events in {frames} frames", file=sys.stderr, flush=True)
    if errors:
        common.report_error(f"{errors} frames could not be read or segmented")
    return 1 if errors else 0


def _stop_after(watcher: Watcher, stopped: threading.Event) -> None:
    """Set `stopped` when there is nothing left to watch."""
    watcher.wait()
    stopped.set()


def _segmenter(settings: Settings) -> Any:
    model = settings.model
    wanted = argparse.Namespace(
        model=model.pack, threads=model.threads, short_side=model.short_side
    )
    return common.make_segmenter(wanted, model.score, model.max_detections)


class _Printer:
    """Writes events to stdout, as lines of JSON."""

    def __init__(self, stopped: threading.Event) -> None:
        self.closed = False
        self._stopped = stopped

    def event(self, record: dict[str, Any]) -> None:
        try:
            print(json.dumps(record, ensure_ascii=False), flush=True)
        except OSError:  # the reader has gone, and nobody else would hear of the events
            self.closed = True
            self._stopped.set()

    def occupancy(self, slug: str, count: int) -> None:
        pass
