"""What takes results away from an engine: MQTT and, with zones, :mod:`edgemask.watch`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from edgemask.errors import InputError

if TYPE_CHECKING:
    from edgemask.live.engine import Engine
    from edgemask.settings import Settings
    from edgemask.watch.watcher import Listener

__all__ = ["Sink", "check_classes", "start_sinks"]

# More than one result may wait, so that a pause of the system does not look like an absence.
_WAITING = 8


class Sink(Protocol):
    """Something that follows an engine until it is stopped."""

    name: str

    def status(self) -> dict[str, Any]:
        """Return what is going on, JSON-ready."""

    def stop(self) -> None:
        """Stop, deliver what is waiting, and give back threads and connections."""


def start_sinks(
    engine: Engine,
    settings: Settings,
    *,
    classes: Iterable[str] = (),
    listeners: Iterable[Listener] = (),
    report: Callable[[str], None] = lambda line: None,
) -> list[Sink]:
    """Start what the configuration asks for.

    Parameters
    ----------
    engine : Engine
        Started or not.
    settings : Settings
        MQTT is started if it names a broker, watching if it has a zone.
    classes : iterable of str
        The model's class names, so that their counts are published as 0 before one was seen, and
        names in the configuration can be checked.
    listeners : iterable of Listener
        Told about events, besides MQTT.
    report : callable
        Gets a line when something changes that the user should know: connection, disk, hook.

    Returns
    -------
    list of Sink
        In the order in which they are to be stopped: what makes events before what sends them.

    Raises
    ------
    InputError
        The configuration names a class that the model does not have.
    RuntimeUnavailable
        MQTT is asked for and paho-mqtt is not installed, or clips and PyAV is not.
    SourceError
        A password or certificate cannot be read.
    """
    known = list(classes)
    if known:
        check_classes(settings, known)
    if settings.zone and settings.events.clip:
        from edgemask.watch.clips import require

        require()  # before anything is started
    sinks: list[Sink] = []
    heard = list(listeners)
    if settings.mqtt.host:
        from edgemask.sinks.mqtt import MqttSink

        mqtt = MqttSink(
            engine.subscribe(),
            settings.mqtt,
            engine.status,
            classes=known,
            zones=settings.zone,
            report=report,
        )
        sinks.append(mqtt)
        heard.append(mqtt)
    if settings.zone:
        from edgemask.watch.watcher import Watcher

        sinks.insert(0, Watcher(engine.subscribe(_WAITING), settings, heard, report=report))
    return sinks


def check_classes(settings: Settings, known: Collection[str]) -> None:
    """Refuse a class that a model with these would never find.

    Raises
    ------
    InputError
        The configuration names one.
    """
    named = {"mqtt.classes": settings.mqtt.classes}
    named |= {f"classes of the zone {zone.name!r}": zone.classes for zone in settings.zone}
    for where, names in named.items():
        for name in names:
            if name in known:
                continue
            near = difflib.get_close_matches(name, known, n=1)
            some = ", ".join(list(known)[:10]) + (", …" if len(known) > 10 else "")
            hint = f"did you mean {near[0]!r}?" if near else f"it has {some}"
            raise InputError(f"{where}: the model has no class {name!r}; {hint}")
