"""What is published: topics and JSON, among them Home Assistant's discovery messages. All pure."""

from __future__ import annotations

import json
import re
import socket
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgemask import __version__
from edgemask.live.result import Result, summary
from edgemask.settings import MqttSettings, slug

__all__ = ["Topics", "counts", "detections", "diagnostics", "discovery", "encode", "zone_state"]


def encode(content: Mapping[str, Any]) -> bytes:
    """Return compact JSON."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")  # what is no text in a file's name is escaped


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one board: ``TOPIC/NODE/…``."""

    base: str
    node: str
    discovery: str

    @classmethod
    def of(cls, settings: MqttSettings) -> Topics:
        """Return the topics of a configuration; without a node, the host's name is taken."""
        node = settings.node or re.sub(r"[^a-zA-Z0-9_-]+", "_", socket.gethostname()) or "edgemask"
        return cls(f"{settings.topic}/{node}", node, settings.discovery_prefix)

    @property
    def status(self) -> str:
        """``online`` or ``offline``; the broker says the latter if this board falls silent."""
        return f"{self.base}/status"

    @property
    def counts(self) -> str:
        """How many of each class are in the image."""
        return f"{self.base}/counts"

    @property
    def detections(self) -> str:
        """Boxes and scores of a frame."""
        return f"{self.base}/detections"

    @property
    def diagnostics(self) -> str:
        """How the board is doing."""
        return f"{self.base}/diagnostics"

    @property
    def event(self) -> str:
        """Somebody entered a zone or left it."""
        return f"{self.base}/event"

    def zone(self, zone_slug: str) -> str:
        """How many are in a zone."""
        return f"{self.base}/zone/{zone_slug}"


def counts(class_names: Iterable[str], known: Iterable[str]) -> dict[str, Any]:
    """Return how many there are of each class; 0 for a known class that is not there."""
    tally = dict.fromkeys(known, 0)
    for name in class_names:
        tally[name] = tally.get(name, 0) + 1
    return {"schema": "edgemask.counts/1", "total": sum(tally.values()), "counts": tally}


def detections(result: Result, classes: Collection[str] = ()) -> dict[str, Any]:
    """Return a frame's instances without masks; see :func:`edgemask.live.result.summary`.

    Parameters
    ----------
    result : Result
    classes : collection of str
        Of these only; all if empty.
    """
    content = {"schema": "edgemask.detections/1", **summary(result)}
    if classes:
        found = content["instances"]
        content["instances"] = [one for one in found if one["class_name"] in classes]
    return content


def zone_state(zone_slug: str, count: int) -> dict[str, Any]:
    """Return how many are in a zone."""
    return {"schema": "edgemask.zone/1", "zone": zone_slug, "count": count}


def diagnostics(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of an engine's status that is worth a graph; None is what is not known."""
    throttled = status.get("throttled")
    return {
        "schema": "edgemask.diagnostics/1",
        "fps": status.get("fps"),
        "latency_ms": status.get("latency_ms"),
        "temperature_c": status.get("temperature_c"),
        "throttled": None if throttled is None else bool(throttled["now"]),
        "source": (status.get("source") or {}).get("state"),
        "frames": status.get("frames"),
        "dropped": status.get("dropped"),
        "errors": status.get("errors"),
    }


_MEASUREMENT = {"state_class": "measurement"}
_DIAGNOSTIC = {**_MEASUREMENT, "entity_category": "diagnostic"}


def discovery(
    topics: Topics, classes: Iterable[str], zones: Mapping[str, str], *, temperature: bool
) -> dict[str, dict[str, Any]]:
    """Return Home Assistant's discovery messages by topic.

    Parameters
    ----------
    topics : Topics
    classes : iterable of str
        A sensor for each.
    zones : mapping of str to str
        Slug to name; a sensor and an occupancy sensor for each.
    temperature : bool
        Whether the board has a thermometer.
    """
    messages: dict[str, dict[str, Any]] = {}
    device = {
        "identifiers": [f"edgemask_{topics.node}"],
        "name": f"edgemask {topics.node}",
        "manufacturer": "edgemask",
        "model": "instance segmentation camera",
        "sw_version": __version__,
    }

    def add(
        component: str, name: str, topic: str, template: str, known: str = "", **more: Any
    ) -> None:
        object_id = known or slug(name)
        messages[f"{topics.discovery}/{component}/{topics.node}/{object_id}/config"] = {
            "name": name,
            "unique_id": f"edgemask_{topics.node}_{object_id}",
            "state_topic": topic,
            "value_template": template,
            "availability_topic": topics.status,
            "device": device,
            "origin": {"name": "edgemask", "sw_version": __version__},
            **more,
        }

    def occupancy(name: str, topic: str, value: str) -> None:
        template = f"{{{{ 'ON' if value_json.{value} > 0 else 'OFF' }}}}"
        add("binary_sensor", name, topic, template, device_class="occupancy")

    given = list(classes)
    slugs = [slug(name) for name in given]
    for name, own in zip(given, slugs, strict=True):
        # Names in other scripts have no slug, and others may share one.
        plain = name.isascii() and slugs.count(own) == 1
        known = "" if plain else f"{slug(f'{name} count')}_{zlib.crc32(name.encode()):08x}"
        template = f"{{{{ value_json.counts[{json.dumps(name)}] | default(0) }}}}"
        add("sensor", f"{name} count", topics.counts, template, known, **_MEASUREMENT)
    occupancy("occupancy", topics.counts, "total")
    for zone_slug, name in zones.items():
        topic = topics.zone(zone_slug)
        add("sensor", f"{name} zone count", topic, "{{ value_json.count }}", **_MEASUREMENT)
        occupancy(f"{name} zone occupancy", topic, "count")
    fps = {"unit_of_measurement": "fps", **_DIAGNOSTIC}
    add("sensor", "frame rate", topics.diagnostics, "{{ value_json.fps }}", **fps)
    if temperature:
        celsius = {"device_class": "temperature", "unit_of_measurement": "°C", **_DIAGNOSTIC}
        template = "{{ value_json.temperature_c }}"
        add("sensor", "temperature", topics.diagnostics, template, **celsius)
    return messages
