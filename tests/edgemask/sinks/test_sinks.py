"""Starting and stopping, also where there is no broker."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from edgemask.errors import InputError, RuntimeUnavailable, SourceError
from edgemask.instances import Instances
from edgemask.live.governor import GovernorState
from edgemask.live.mailbox import Mailbox
from edgemask.live.result import Result
from edgemask.masks import CropMasks
from edgemask.settings import MqttSettings, Settings, ZoneSettings
from edgemask.sinks import start_sinks
from edgemask.sources.base import Frame

ZONE = ZoneSettings("door", ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)))
SOMEBODY = Instances(
    [[1, 2, 9, 9]], [0.9], [1], CropMasks([np.ones((7, 8), bool)], [(1, 2)], 20, 30), ["person"]
)


class FakeEngine:
    """What a sink needs of an engine."""

    def __init__(self):
        self.boxes = []

    def subscribe(self, maxsize=1):
        self.boxes.append(Mailbox(maxsize))
        return self.boxes[-1]

    def status(self):
        return {"fps": 1.0}


class Listening:
    """Keeps what it hears."""

    def __init__(self):
        self.events, self.occupancies = [], []

    def event(self, record):
        self.events.append(record)

    def occupancy(self, slug, count):
        self.occupancies.append((slug, count))


def result(n):
    frame = Frame(np.zeros((20, 30, 3), np.uint8), n, None, 0, f"f-{n}")
    return Result(frame, Instances.empty(20, 30), {}, 1.0, 1.0, GovernorState(), n)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_nothing_is_started_unless_asked_for():
    engine = FakeEngine()
    assert start_sinks(engine, Settings()) == []
    assert engine.boxes == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(mqtt=MqttSettings(classes=("persn",))), r"mqtt\.classes: .*mean 'person'\?"),
        (Settings(zone=(replace(ZONE, classes=("person", "tree")),)), r"'door': .*has person, dog"),
    ],
)
def test_classes_that_the_model_does_not_have(settings, words):
    engine = FakeEngine()
    with pytest.raises(InputError, match=words):
        start_sinks(engine, settings, classes=["person", "dog"])
    assert engine.boxes == []


def test_zones_start_watching():
    engine = FakeEngine()
    (sink,) = start_sinks(engine, Settings(zone=(ZONE,)))
    assert sink.name == "watch"
    assert sink.status()["zones"] == {"door": 0}
    sink.stop()
    assert engine.boxes[0].finished


def test_mqtt_hears_of_events_and_so_do_others(monkeypatch) -> None:
    class FakeMqtt(Listening):
        def __init__(self, *_, **__):
            super().__init__()

    monkeypatch.setattr("edgemask.sinks.mqtt.MqttSink", FakeMqtt)
    polygon = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    everywhere = ZoneSettings("all", polygon, min_seconds=0)
    settings = Settings(mqtt=MqttSettings(host="localhost"), zone=(everywhere,))
    engine, other = FakeEngine(), Listening()
    watch, mqtt = start_sinks(engine, settings, listeners=[other])
    for box in engine.boxes:
        box.put(replace(result(0), instances=SOMEBODY))
        box.close()
    assert watch.wait(20)
    watch.stop()
    for heard in (mqtt, other):
        (record,) = heard.events
        assert (record["kind"], record["zone"]) == ("enter", "all")
        assert heard.occupancies == [("all", 0), ("all", 1), ("all", 0)]


def test_mqtt_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "paho.mqtt", None)
    with pytest.raises(RuntimeUnavailable, match=r"pip install 'edgemask\[mqtt\]'"):
        start_sinks(FakeEngine(), Settings(mqtt=MqttSettings(host="localhost")))


def test_files_that_are_not_there(tmp_path):
    pytest.importorskip("paho.mqtt")
    missing = tmp_path / "none"
    for settings in (
        MqttSettings(host="localhost", username="me", password_file=missing),
        MqttSettings(host="localhost", tls=True, ca_file=missing),
    ):
        with pytest.raises(SourceError, match="none"):
            start_sinks(FakeEngine(), Settings(mqtt=settings))


def test_nobody_is_counted_when_no_results_come(monkeypatch):
    pytest.importorskip("paho.mqtt")
    monkeypatch.setattr("edgemask.sinks.mqtt._SILENCE", 0.1)
    engine = FakeEngine()
    settings = Settings(
        mqtt=MqttSettings(host="127.0.0.1", port=free_port(), node="test", diagnostics_seconds=1)
    )
    (mqtt,) = start_sinks(engine, settings, classes=["person"])
    told = []
    monkeypatch.setattr(
        mqtt._outbox, "set_state", lambda topic, content, **_: told.append((topic, content))
    )
    engine.boxes[0].put(replace(result(0), instances=SOMEBODY))
    end = time.monotonic() + 20
    while len(counts := [json.loads(c) for t, c in told if t.endswith("/counts")]) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert [c["counts"]["person"] for c in counts] == [1, 0]
    # It ends while somebody is there: nobody is any more, and the board still says how it is.
    engine.boxes[0].put(replace(result(1), instances=SOMEBODY))
    engine.boxes[0].close()
    while len(counts := [json.loads(c) for t, c in told if t.endswith("/counts")]) < 4:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert [c["counts"]["person"] for c in counts] == [1, 0, 1, 0]
    assert told[-1][0].endswith("/diagnostics")
    before = len(told)
    while len(told) < before + 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    mqtt.stop()


def test_what_goes_wrong_with_one_result_is_said_and_does_not_silence_the_next(monkeypatch):
    pytest.importorskip("paho.mqtt")
    engine, lines = FakeEngine(), []
    settings = Settings(mqtt=MqttSettings(host="127.0.0.1", port=free_port(), node="test"))
    (mqtt,) = start_sinks(engine, settings, classes=["person"], report=lines.append)
    told, tell = [], mqtt._tell

    def sometimes(found, now):
        told.append(found.sequence)
        if found.sequence < 2:
            raise ValueError("no")
        tell(found, now)

    monkeypatch.setattr(mqtt, "_tell", sometimes)
    for n in range(3):
        engine.boxes[0].put(result(n), wait=True)
    end = time.monotonic() + 20
    while len(told) < 3:
        assert time.monotonic() < end
        time.sleep(0.02)
    mqtt.stop()
    assert lines.count("mqtt: a result was not published (ValueError: no)") == 1


def test_the_broker_is_told_at_the_start_that_nobody_is_there():
    pytest.importorskip("paho.mqtt")
    settings = Settings(mqtt=MqttSettings(host="127.0.0.1", port=free_port(), node="test"))
    (mqtt,) = start_sinks(FakeEngine(), settings, classes=["person"])
    waiting = {}
    while (message := mqtt._outbox.take(0)) is not None:
        waiting[message.topic] = message
    mqtt.stop()
    assert json.loads(waiting[mqtt.topics.counts].payload)["counts"] == {"person": 0}
    assert waiting[mqtt.topics.counts].retain


def test_a_broker_that_is_not_there_holds_nothing_up():
    pytest.importorskip("paho.mqtt")
    engine, lines = FakeEngine(), []
    before = threading.active_count()
    port = free_port()
    wanted = MqttSettings(host="127.0.0.1", port=port, node="test")
    settings = Settings(mqtt=wanted, zone=(ZONE,))
    watch, mqtt = start_sinks(engine, settings, classes=["person"], report=lines.append)
    assert [watch.name, mqtt.name] == ["watch", "mqtt"]
    for n in range(1000):
        for box in engine.boxes:
            box.put(result(n))
        mqtt.event({"n": n})
    end = time.monotonic() + 20
    while not lines and time.monotonic() < end:
        time.sleep(0.05)
    assert lines == [f"mqtt 127.0.0.1:{port}: disconnected: the broker cannot be reached"]
    assert mqtt.status()["dropped_events"] == 1000 - 64
    began = time.monotonic()
    watch.stop()
    mqtt.stop()
    assert time.monotonic() - began < 10
    assert mqtt.status()["state"] == "stopped"
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.05)
    assert threading.active_count() == before
