"""MQTT against a real mosquitto on the loopback interface, killed, stopped and restarted.

Marked ``broker``: it needs the mosquitto program and paho-mqtt, and takes about a minute.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mosquitto import Broker, until

from edgemask.instances import Instances
from edgemask.live.governor import GovernorState
from edgemask.live.mailbox import Mailbox
from edgemask.live.result import Result
from edgemask.masks import CropMasks
from edgemask.settings import MqttSettings, ZoneSettings
from edgemask.sinks.mqtt import MqttSink
from edgemask.sources.base import Frame

paho = pytest.importorskip("paho.mqtt.client")
pytestmark = pytest.mark.broker

BASE = "edgemask/test"
ZONE = ZoneSettings("Front door", ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)))


class Ear:
    """A subscriber to everything, which outlives the broker.

    With a name, the broker keeps for it what it misses.
    """

    def __init__(self, port: int, name: str = "") -> None:
        self.heard: list[tuple[str, str, bool]] = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, name, clean_session=not name)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self.client.on_message = lambda client, data, m: self.heard.append(
            (m.topic, m.payload.decode(), m.retain)
        )
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def all(self, topic: str) -> list[str]:
        return [payload for name, payload, _ in list(self.heard) if name == f"{BASE}/{topic}"]

    def last(self, topic: str) -> str | None:
        return (self.all(topic) or [None])[-1]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Stream:
    """Results at a steady rate from a thread, with `people` persons each."""

    def __init__(self) -> None:
        self.box: Mailbox[Result] = Mailbox(1)
        self.people, self.sent, self.slowest = 0, 0, 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(0.01):
            began = time.perf_counter()
            self.box.put(self._result())
            self.slowest = max(self.slowest, time.perf_counter() - began)
            self.sent += 1

    def _result(self) -> Result:
        frame = Frame(np.zeros((20, 30, 3), np.uint8), self.sent, None, time.time_ns(), "f")
        count = self.people
        masks = CropMasks([np.ones((4, 5), bool)] * count, [(2, 3)] * count, 20, 30)
        boxes, scores, classes = [[2, 3, 7, 7]] * count, [0.75] * count, [1] * count
        found = Instances(boxes, scores, classes, masks, ["person"] * count)
        return Result(frame, found, {}, 1.0, 9.0, GovernorState(), self.sent)

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.close()


@pytest.fixture
def sink(broker: Broker, stream: Stream) -> Iterator[MqttSink]:
    made = make_sink(stream, broker.port)
    assert until(lambda: made.state == "connected")
    yield made
    made.stop()


def make_sink(stream: Stream, port: int, **options: Any) -> MqttSink:
    settings = {"host": "127.0.0.1", "node": "test", "max_rate": 10.0, "diagnostics_seconds": 1.0}
    status = {"fps": 9.0, "temperature_c": 48.5, "source": {"state": "running"}}
    return MqttSink(
        stream.box,
        MqttSettings(**{**settings, "port": port, **options}),
        lambda: status,
        classes=["person", "dog"],
        zones=[ZONE],
    )


@pytest.fixture
def ear(broker: Broker) -> Iterator[Ear]:
    made = Ear(broker.port)
    yield made
    made.close()


def count(text: str | None) -> int | None:
    return None if text is None else json.loads(text)["counts"].get("person")


def test_states_and_discovery_wait_for_those_who_come_later(
    sink: MqttSink, stream: Stream, broker: Broker
) -> None:
    stream.people = 2
    sink.occupancy("front_door", 1)
    assert until(lambda: sink.sent > 12)
    late = Ear(broker.port)
    try:
        assert until(lambda: count(late.last("counts")) == 2)
        assert late.last("status") == "online"
        assert json.loads(late.last("zone/front_door") or "")["count"] == 1
        assert until(lambda: late.last("diagnostics"))
        assert json.loads(late.last("diagnostics") or "")["temperature_c"] == 48.5
        retained = {topic: text for topic, text, kept in list(late.heard) if kept}
        configs = {t: json.loads(p) for t, p in retained.items() if t.startswith("homeassistant/")}
        assert {topic.split("/")[1] + "/" + topic.split("/")[3] for topic in configs} == {
            "sensor/person_count",
            "sensor/dog_count",
            "binary_sensor/occupancy",
            "sensor/front_door_zone_count",
            "binary_sensor/front_door_zone_occupancy",
            "sensor/frame_rate",
            "sensor/temperature",
        }
        # What Home Assistant is told to listen to is what is there.
        for config in configs.values():
            assert config["state_topic"] in retained
            assert retained[config["availability_topic"]] == "online"
        assert until(lambda: late.all("detections"))
        assert f"{BASE}/detections" not in retained
        assert len(json.loads(late.all("detections")[-1])["instances"]) == 2
    finally:
        late.close()


def test_rate_and_change(sink: MqttSink, stream: Stream, ear: Ear) -> None:
    assert until(lambda: count(ear.last("counts")) == 0)
    ear.heard.clear()
    sent = stream.sent
    began = time.monotonic()
    while time.monotonic() - began < 3:
        stream.people = (stream.people + 1) % 5
        time.sleep(0.013)
    stream.people = 4
    seconds = time.monotonic() - began
    assert until(lambda: count(ear.last("counts")) == 4)
    assert 5 <= len(ear.all("counts")) <= 10 * seconds + 2
    assert stream.sent - sent > 5 * seconds
    # Nothing changes any more, so nothing is sent of it.
    time.sleep(0.5)
    quiet = len(ear.all("counts"))
    time.sleep(1)
    assert len(ear.all("counts")) == quiet


def test_killed_and_restarted_broker_gets_the_newest_state(
    sink: MqttSink, stream: Stream, broker: Broker, ear: Ear
) -> None:
    for n in range(1, 4):
        stream.people = n
        assert until(lambda n=n: count(ear.last("counts")) == n)
        broker.kill()
        assert until(lambda: sink.state.startswith("disconnected"))
        stream.people = n + 10
        sent = stream.sent
        time.sleep(0.5)
        assert stream.sent > sent + 5
        ear.heard.clear()
        broker.start()  # and it has forgotten everything
        assert until(lambda: sink.state == "connected", 40)
        assert until(lambda n=n: count(ear.last("counts")) == n + 10)
        assert until(lambda: ear.last("status") == "online")
        assert until(lambda: len([t for t, _, _ in ear.heard if t.startswith("homeassist")]) == 7)
    assert stream.slowest < 0.5


def test_events_while_the_broker_is_down_arrive_in_order(tmp_path: Path, stream: Stream) -> None:
    broker = Broker(
        tmp_path,
        "allow_anonymous true\npersistence true\nautosave_on_changes true\nautosave_interval 1\n"
        f"persistence_location {tmp_path}/\n",
    )
    ear = Ear(broker.port, "ear")
    sink = make_sink(stream, broker.port)
    try:
        assert until(lambda: ear.last("status") == "online")
        for n in range(60):
            sink.event({"n": n})
            if n == 29:
                broker.kill()
                assert until(lambda: sink.state.startswith("disconnected"))
        broker.start()
        assert until(lambda: '{"n":59}' in ear.all("event"), 40)
        numbers = [json.loads(text)["n"] for text in ear.all("event")]
        # The dying broker may take with it what it has acknowledged and not yet passed on.
        assert set(numbers) >= set(range(30, 60))
        later = [n for n in numbers if n >= 30]
        assert later == sorted(later)
    finally:
        sink.stop()
        ear.close()
        broker.kill()


def test_a_broker_that_hangs(sink: MqttSink, stream: Stream, broker: Broker, ear: Ear) -> None:
    assert until(lambda: count(ear.last("counts")) == 0)
    broker.send(signal.SIGSTOP)
    try:
        for n in range(5000):
            sink.event({"n": n, "text": "x" * 1000})
            stream.people = n % 7
        stream.people = 9
        sent = stream.sent
        time.sleep(1)
        assert stream.sent > sent + 10
        assert sink.status()["dropped_events"] > 4000
    finally:
        broker.send(signal.SIGCONT)
    assert until(lambda: count(ear.last("counts")) == 9)
    assert until(lambda: json.loads(ear.all("event")[-1])["n"] == 4999)


def test_stopping_while_the_broker_hangs(broker: Broker, stream: Stream) -> None:
    before = threading.active_count()
    sink = make_sink(stream, broker.port)
    assert until(lambda: sink.state == "connected")
    broker.send(signal.SIGSTOP)
    try:
        sink.event({"text": "x"})
        time.sleep(0.3)
        began = time.monotonic()
        sink.stop()
        assert time.monotonic() - began < 6
        assert until(lambda: threading.active_count() <= before, 10)
    finally:
        broker.send(signal.SIGCONT)


def test_a_clean_stop_says_offline(sink: MqttSink, stream: Stream, ear: Ear) -> None:
    assert until(lambda: ear.last("status") == "online")
    stream.people = 3
    assert until(lambda: count(ear.last("counts")) == 3)
    sink.event({"last": "words"})
    sink.stop()
    assert until(lambda: ear.last("status") == "offline")
    assert ear.all("event") == ['{"last":"words"}']


def test_a_crash_says_offline_and_a_new_start_online(
    broker: Broker, ear: Ear, tmp_path: Path
) -> None:
    config = tmp_path / "edgemask.toml"
    config.write_text(
        f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\nnode = "test"\n'
        '[[zone]]\nname = "a"\npolygon = [[0, 0], [1, 0], [1, 1]]\n',
        "utf-8",
    )
    command = [sys.executable, "-m", "edgemask", "watch", "--config", str(config)]
    source = "synthetic:?live=yes&size=160x120&fps=2"
    process = subprocess.Popen([*command, source], stdout=subprocess.DEVNULL)
    try:
        assert until(lambda: ear.last("status") == "online", 60)
        assert until(lambda: ear.last("diagnostics"), 60)
        process.kill()
        assert until(lambda: ear.last("status") == "offline")
        process = subprocess.Popen([*command, source], stdout=subprocess.DEVNULL)
        assert until(lambda: ear.last("status") == "online", 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert until(lambda: ear.last("status") == "offline")
    finally:
        process.kill()
        process.wait()


def test_the_same_name_takes_over_and_stays_online(
    broker: Broker, stream: Stream, ear: Ear
) -> None:
    """The dead connection of a crashed process must not have the last word."""
    dead = paho.Client(paho.CallbackAPIVersion.VERSION2, "edgemask-test")
    dead.will_set(f"{BASE}/status", "offline", qos=1, retain=True)
    dead.connect("127.0.0.1", broker.port)
    dead.loop_start()
    assert until(dead.is_connected)
    dead.loop_stop()  # from now on it is silent, and the broker does not know
    sink = make_sink(stream, broker.port)
    try:
        assert until(lambda: ear.all("status") == ["offline", "online"])
        time.sleep(0.5)
        assert ear.last("status") == "online"
    finally:
        sink.stop()


def test_tls_and_password(tmp_path: Path, stream: Stream) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-keyout", "key.pem", "-out", "ca.pem", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", tmp_path / "users", "camera", "secret"], check=True
    )
    broker = Broker(
        tmp_path,
        f"cafile {tmp_path}/ca.pem\ncertfile {tmp_path}/ca.pem\nkeyfile {tmp_path}/key.pem\n"
        f"password_file {tmp_path}/users\nallow_anonymous false\n",
    )
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "wrong").write_text("guess\n")
    known = {"tls": True, "ca_file": tmp_path / "ca.pem", "username": "camera"}
    try:
        for password, options, wanted in (
            ("password", known, "connected"),
            ("wrong", known, "refused"),
            ("password", {**known, "ca_file": None}, "disconnected"),
        ):
            sink = make_sink(stream, broker.port, password_file=tmp_path / password, **options)
            assert until(lambda s=sink, w=wanted: s.state.startswith(w)), sink.state
            sink.stop()
            stream.box = Mailbox(1)
    finally:
        broker.kill()
