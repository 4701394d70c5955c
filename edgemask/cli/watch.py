"""``edgemask watch``: report who enters and leaves the zones of a configuration."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgemask.cli import common
from edgemask.cli.running import add_source, running, with_options
from edgemask.errors import InputError, SourceError

if TYPE_CHECKING:
    from edgemask.watch.watcher import Watcher

HELP = "report who enters and leaves zones of the image"
EXAMPLE = "edgemask watch camera:0 --config edgemask.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    add_source(parser, "source.uri of the configuration")
    parser.add_argument(
        "--config",
        metavar="FILE",
        required=True,
        help="TOML file with one or more [[zone]] tables; see docs/watch.md",
    )


def run(options: argparse.Namespace) -> int:
    """Print a line of JSON per event until the source ends, or until SIGTERM or Ctrl-C."""
    from edgemask.settings import load_settings
    from edgemask.watch.watcher import Watcher

    settings = load_settings(options.config)
    if not settings.zone:
        raise InputError(f"{options.config} has no zone; add a [[zone]] with name and polygon")
    settings = with_options(settings, {"source": {"uri": options.source}})
    printer = _Printer()
    with running(settings, listeners=[printer]) as program:
        engine, stopped = program.engine, program.stopped
        printer.when_closed = stopped.set
        (watcher,) = (sink for sink in program.sinks if isinstance(sink, Watcher))
        program.start()
        threading.Thread(target=_stop_after, args=(watcher, stopped), daemon=True).start()
        program.supervise()
        if watcher.error is not None:
            raise watcher.error
        if printer.closed:
            raise BrokenPipeError
        source = engine.status()["source"]
        if engine.wait(0) and source["state"] != "ended":
            raise SourceError(source["error"])
    frames, errors = engine.status()["frames"], engine.status()["errors"]
    counted = common.counted(watcher.events, "event")
    print(f"{counted} in {common.counted(frames, 'frame')}", file=sys.stderr, flush=True)
    if errors:
        common.report_error(f"{common.counted(errors, 'frame')} could not be read or segmented")
    if watcher.errors:
        frames_wrong = common.counted(watcher.errors, "frame")
        common.report_error(f"watching went wrong on {frames_wrong}: {watcher.last_error}")
    if watcher.failed:
        events = common.counted(watcher.failed, "event")
        common.report_error(f"{events} could not be delivered completely")
    return 1 if errors or watcher.errors or watcher.failed else 0


def _stop_after(watcher: Watcher, stopped: threading.Event) -> None:
    """Set `stopped` when there is nothing left to watch."""
    watcher.wait()
    stopped.set()


class _Printer:
    """Writes events to stdout, as lines of JSON."""

    def __init__(self) -> None:
        self.closed = False
        self.when_closed: Callable[[], None] = lambda: None

    def event(self, record: dict[str, Any]) -> None:
        try:
            print(json.dumps(record, ensure_ascii=False), flush=True)
        except OSError:  # the reader has gone, and nobody else would hear of the events
            self.closed = True
            self.when_closed()

    def occupancy(self, slug: str, count: int) -> None:
        pass
