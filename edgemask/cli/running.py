"""What ``serve`` and ``watch`` share: their settings, and an engine with all that hangs on it."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from edgemask.cli import common

if TYPE_CHECKING:
    import threading

    from edgemask.live.engine import Engine
    from edgemask.live.notify import Notifier
    from edgemask.segmenter import Segmenter
    from edgemask.settings import Settings
    from edgemask.sinks import Sink
    from edgemask.watch.watcher import Listener

__all__ = ["Running", "add_source", "running", "with_options"]


def add_source(parser: argparse.ArgumentParser, default: str) -> None:
    """Add SRC."""
    parser.add_argument(
        "source",
        metavar="SRC",
        nargs="?",
        help=f"camera:0, /dev/video0, rtsp://…, a video, a folder, synthetic: (default: {default})",
    )


def with_options(settings: Settings, given: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Return the settings with options of the command line, by table, laid over them.

    None is what was not given.
    """
    for table, values in given.items():
        known = {name: value for name, value in values.items() if value is not None}
        merged = dataclasses.replace(getattr(settings, table), **known)
        settings = dataclasses.replace(settings, **{table: merged})
    return settings


class Running(NamedTuple):
    """An engine and what follows it."""

    engine: Engine
    sinks: list[Sink]
    notifier: Notifier
    stopped: threading.Event
    uri: str

    def start(self) -> None:
        """Start the engine, and say so to systemd."""
        self.engine.start()
        self.notifier.status("opening the source")
        self.notifier.ready()

    def supervise(self) -> None:
        """Return when the program is told to stop; until then report what goes wrong."""
        from edgemask.live.service import supervise

        supervise(self.engine, self.uri, self.notifier, self.stopped, common.report_warning)


@contextlib.contextmanager
def running(
    settings: Settings,
    *,
    choice: bool = False,
    listeners: Iterable[Listener] = (),
    beside: Callable[[Engine], Callable[[], Any]] | None = None,
) -> Iterator[Running]:
    """Make an engine and its sinks, not started; at the end all of it is stopped.

    Parameters
    ----------
    settings : Settings
    choice : bool
        Whether the model can be changed while it runs, to another that is bundled.
    listeners : iterable of Listener
        Told about events.
    beside : callable, optional
        Gets the engine before the sinks are made, and returns what is to be called last of all.
    """
    from edgemask.live.engine import Engine
    from edgemask.live.memory import share_heap
    from edgemask.live.notify import Notifier
    from edgemask.live.service import longest_pause, stop_signals
    from edgemask.sinks import start_sinks

    share_heap()
    notifier = Notifier()
    with stop_signals() as stopped, contextlib.ExitStack() as cleanup:
        segmenters = _segmenters(settings, settings.model.pack)
        engine = Engine(
            settings.source.uri,
            segmenters,
            **(_models(settings) if choice else {}),
            max_fps=settings.pace.max_fps,
            max_temp=settings.pace.max_temp,
            backoff=(0.5, longest_pause(notifier.watchdog_seconds)),
        )
        if beside is not None:
            cleanup.callback(beside(engine))
        sinks = start_sinks(
            engine,
            settings,
            classes=segmenters[0].pack.class_names.values(),
            listeners=listeners,
            report=common.report_state,
        )
        for sink in reversed(sinks):
            cleanup.callback(sink.stop)
        cleanup.callback(engine.stop)
        cleanup.callback(notifier.stopping)
        yield Running(engine, sinks, notifier, stopped, settings.source.uri)


def _segmenters(settings: Settings, pack: str) -> list[Segmenter]:
    """Return as many segmenters as frames are worked on at the same time."""
    model = settings.model
    # With a limit the frames are not short of time, and one at a time has the shortest delay.
    parallel = model.parallel or (None if settings.pace.max_fps is None else 1)
    wanted = argparse.Namespace(model=pack, threads=model.threads, short_side=model.short_side)
    return common.make_segmenters(wanted, model.score, model.max_detections, parallel)


def _models(settings: Settings) -> dict[str, Any]:
    """Return the engine's options about the models that it may be told to run."""
    from edgemask.live.models import names_of
    from edgemask.modelpack import bundled_packs
    from edgemask.sinks import check_classes

    packs, name = names_of(settings.model.pack, bundled_packs())

    def maker(pack: str) -> Callable[[], Any]:
        def make() -> Any:
            segmenters = _segmenters(settings, pack)
            # As at the start: a zone that nobody could enter any more is a mistake.
            check_classes(settings, list(segmenters[0].pack.class_names.values()))
            return segmenters

        return make

    return {"models": {name: maker(pack) for name, pack in packs.items()}, "model": name}
