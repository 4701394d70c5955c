"""The configuration of ``serve``, ``watch`` and the service: one TOML file, one dataclass a table.

Every key has a default and is described in ``edgemask/assets/edgemask.toml`` and
docs/configuration.md. Secrets are never in the file: it names files that hold them, or they come
from the environment.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgemask.errors import InputError, SourceError
from edgemask.tomlfile import expanded, fill, key, one_of, read_toml, within

__all__ = [
    "EXAMPLE",
    "SECRETS",
    "EventSettings",
    "ModelSettings",
    "MqttSettings",
    "PaceSettings",
    "ServeSettings",
    "Settings",
    "SourceSettings",
    "ZoneSettings",
    "load_settings",
    "mqtt_password",
    "size_in_bytes",
    "slug",
]

EXAMPLE = Path(__file__).with_name("assets") / "edgemask.toml"
"""A commented file with every key; as it is, it holds the defaults."""

_PASSWORD = "EDGEMASK_MQTT_PASSWORD"
SECRETS = (_PASSWORD,)
"""Environment variables that no other program is to see."""

_FARTHEST = 1e6  # pixels from the corner of an image
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30}


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("a text that is not empty")
    return text


def _host(text: str) -> str:
    try:
        text.encode("idna")
    except UnicodeError:
        raise ValueError("the name or address of a host") from None
    if set(text) & set(" /"):
        raise ValueError("the name or address of a host, without mqtt:// or a path")
    return text


def _topic(text: str) -> str:
    if not text or set(text) & set("+#\0") or text.startswith(("/", "$")) or text.endswith("/"):
        raise ValueError("a topic such as home/edgemask, without + # or a slash at either end")
    return text


def _node(text: str) -> str:
    # Home Assistant allows no other characters in a discovery topic.
    if not re.fullmatch(r"[a-zA-Z0-9_-]*", text):
        raise ValueError("letters, digits, _ and - only")
    return text


def _bytes(text: str) -> str:
    size_in_bytes(text)
    return text


def slug(text: str) -> str:
    """Return a text in lower case with nothing but a-z, 0-9, _ and -."""
    return re.sub(r"[^a-z0-9_-]+", "_", text.lower()).strip("_")


def size_in_bytes(text: str) -> int:
    """Return what a size such as ``"200 MB"`` means in bytes (kB, MB, GB; KiB, MiB, GiB).

    Raises
    ------
    ValueError
        It is not one.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if not found or found[2].lower() not in _UNITS:
        raise ValueError('a size such as "200 MB" or "1.5 GB"')
    size = float(found[1]) * _UNITS[found[2].lower()]
    if size > 2**63:
        raise ValueError("a size that a disk can have")
    return int(size)


def _polygon(points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    if len(points) < 3:
        raise ValueError("three points or more")
    if not all(0 <= v <= _FARTHEST for point in points for v in point):
        raise ValueError("points within the image, none of them negative")
    following = (*points[1:], points[0])
    doubled = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points, following, strict=True))
    if doubled == 0:
        raise ValueError("points that are not all on one line")
    return points


@dataclass(frozen=True)
class SourceSettings:
    """Where frames come from."""

    uri: str = key("camera:0", _not_empty)


MOST_THREADS = 64
MOST_PARALLEL = 8  # each has networks of its own, some 20 MB


@dataclass(frozen=True)
class ModelSettings:
    """The model and what it may report. None is the pack's own value, or all CPUs."""

    pack: str = key("people", _not_empty)
    score: float = key(0.5, within(0, 1))
    short_side: int | None = key(None, within(32, 4096, "pixels"))
    threads: int | None = key(None, within(1, MOST_THREADS))
    parallel: int | None = key(None, within(1, MOST_PARALLEL))
    max_detections: int = key(20, within(1, 1000))


@dataclass(frozen=True)
class PaceSettings:
    """How hard the board is worked. None is no limit."""

    max_fps: float | None = key(None, within(0.01, 1000, "frames per second"))
    max_temp: float | None = key(None, within(30, 110, "°C"))


@dataclass(frozen=True)
class ServeSettings:
    """The web server."""

    host: str = key("127.0.0.1", _not_empty)
    port: int = key(8080, within(0, 65535))
    token_file: Path | None = None


@dataclass(frozen=True)
class MqttSettings:
    """The broker and what is published. An empty host means no MQTT."""

    host: str = key("", _host)
    port: int = key(1883, within(1, 65535))
    username: str = ""
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    topic: str = key("edgemask", _topic)
    node: str = key("", _node)  # the host's name
    classes: tuple[str, ...] = ()  # all of the model
    max_rate: float = key(2.0, within(0.01, 100, "messages per second"))
    detections: bool = True
    discovery: bool = True
    discovery_prefix: str = key("homeassistant", _topic)
    diagnostics_seconds: float = key(10.0, within(1, 3600, "seconds"))


@dataclass(frozen=True)
class ZoneSettings:
    """An area of the image and when somebody counts as being in it."""

    name: str = field(metadata={"check": _not_empty})
    polygon: tuple[tuple[float, float], ...] = field(metadata={"check": _polygon})
    classes: tuple[str, ...] = ()  # all
    min_score: float = key(0.0, within(0, 1))
    inside: str = key("foot", one_of("foot", "area"))
    min_share: float = key(0.5, within(0.01, 1))
    min_seconds: float = key(2.0, within(0, 3600, "seconds"))
    leave_seconds: float = key(2.0, within(0, 3600, "seconds"))
    cooldown: float = key(30.0, within(0, 86400, "seconds"))

    @property
    def slug(self) -> str:
        """The name as it appears in topics and file names."""
        return slug(self.name) or "zone"

    @property
    def normalised(self) -> bool:
        """Whether the points are shares of width and height; otherwise they are pixels."""
        return all(value <= 1 for point in self.polygon for value in point)


@dataclass(frozen=True)
class EventSettings:
    """What is done about an event."""

    folder: Path | None = None
    disk_budget: str = key("200 MB", _bytes)
    keep_free: str = key("100 MB", _bytes)
    snapshot: bool = True
    leaving: bool = True
    clip: bool = False
    clip_before: float = key(3.0, within(0, 30, "seconds"))
    clip_after: float = key(5.0, within(1, 60, "seconds"))
    clip_fps: float = key(5.0, within(0.5, 15, "frames per second"))
    hook: tuple[str, ...] = ()
    hook_timeout: float = key(10.0, within(0.1, 600, "seconds"))


@dataclass(frozen=True)
class Settings:
    """Everything that can be configured."""

    source: SourceSettings = SourceSettings()
    model: ModelSettings = ModelSettings()
    pace: PaceSettings = PaceSettings()
    serve: ServeSettings = ServeSettings()
    mqtt: MqttSettings = MqttSettings()
    events: EventSettings = EventSettings()
    zone: tuple[ZoneSettings, ...] = ()


def load_settings(path: str | os.PathLike[str]) -> Settings:
    """Read the configuration.

    Parameters
    ----------
    path : path
        Paths inside the file are relative to its folder; ``$NAME`` and ``~`` in them are replaced.

    Returns
    -------
    Settings

    Raises
    ------
    SourceError
        The file cannot be read.
    InputError
        Not TOML, an unknown key, a wrong type or a value out of range; the message names the key.
    """
    path = Path(path)
    values = read_toml(path)
    try:
        folder = path.absolute().parent
        settings = fill(Settings, values, folder)
        _check_together(settings)
        pack = settings.model.pack
        if pack.endswith(".zip"):
            pack = str(expanded(pack, "model.pack", folder))
        return replace(settings, model=replace(settings.model, pack=pack))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _check_together(settings: Settings) -> None:
    taken: dict[str, str] = {}
    for zone in settings.zone:
        if zone.slug in taken:
            raise InputError(
                f"the zones {taken[zone.slug]!r} and {zone.name!r} would share the topic "
                f"{zone.slug!r}; give them names that differ in the letters a-z or in digits"
            )
        taken[zone.slug] = zone.name
    mqtt = settings.mqtt
    if mqtt.ca_file is not None and not mqtt.tls:
        raise InputError("mqtt.ca_file is set but mqtt.tls is not; add tls = true")
    if mqtt.host and mqtt.password_file is not None and not mqtt.username:
        raise InputError("mqtt.password_file is set but mqtt.username is not; add username")
    if settings.events.clip and settings.events.folder is None:
        raise InputError("events.clip is true but events.folder is not set; say where clips go")
    if settings.events.hook and not settings.events.hook[0]:
        raise InputError("events.hook[0] is empty; give the program to run")


def mqtt_password(settings: MqttSettings) -> str | None:
    """Return the broker's password: from the environment, else from its file, else None.

    Raises
    ------
    SourceError
        The file cannot be read.
    """
    if _PASSWORD in os.environ:
        return os.environ[_PASSWORD]
    if settings.password_file is None:
        return None
    try:
        return settings.password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SourceError(
            f"mqtt.password_file {settings.password_file} cannot be read ({reason}): "
            "make it readable for this user"
        ) from error
