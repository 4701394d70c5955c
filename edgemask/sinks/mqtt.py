"""Publishing to an MQTT broker, without ever making the engine wait for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from edgemask.errors import RuntimeUnavailable, SourceError
from edgemask.live.mailbox import Mailbox
from edgemask.live.result import Result
from edgemask.live.silence import Silence
from edgemask.settings import MqttSettings, ZoneSettings, mqtt_password
from edgemask.sinks import payloads
from edgemask.sinks.outbox import Outbox
from edgemask.sinks.payloads import Topics, encode

__all__ = ["MqttSink"]

_KEEPALIVE = 30
_SILENCE = 5.0  # seconds without a result, after which nobody is counted any more
_BACK_OFF = (1, 60)  # seconds
_CONNECT_TIMEOUT = 5.0


class MqttSink:
    """Publishes what an engine finds.

    Three threads: one turns results into messages, one hands these to the client when there is a
    connection, and the client's own talks to the broker. A broker that is slow, gone or not there
    yet costs nothing but the messages: of every state the newest is sent as soon as there is a
    connection again, and the last 64 events.

    Parameters
    ----------
    results : subscription of an engine
        Closed by :meth:`stop`.
    settings : MqttSettings
        With a host.
    status : callable
        Returns the engine's status.
    classes : iterable of str
        The model's class names. Others are added when they are first seen.
    zones : iterable of ZoneSettings
    report : callable, optional
        Gets one line whenever the connection changes.

    Attributes
    ----------
    state : str
        ``connecting``, ``connected``, ``disconnected: reason``, ``refused: reason`` or ``stopped``.
    sent : int
        Messages given to the broker.

    Raises
    ------
    RuntimeUnavailable
        paho-mqtt is not installed.
    SourceError
        The password or the certificate cannot be read.
    """

    name = "mqtt"

    def __init__(
        self,
        results: Mailbox[Result],
        settings: MqttSettings,
        status: Callable[[], dict[str, Any]],
        *,
        classes: Iterable[str] = (),
        zones: Iterable[ZoneSettings] = (),
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.state, self.sent = "connecting", 0
        self.topics = Topics.of(settings)
        self._results, self._settings, self._status = results, settings, status
        self._report = report
        self._classes = list(settings.classes or classes)
        self._zones = {zone.slug: zone.name for zone in zones}
        self._temperature = False
        self._detected, self._shown = 0.0, False  # when detections were sent, and of anybody
        self._connected = threading.Event()
        self._stopping = threading.Event()
        self._outbox = Outbox(settings.max_rate)
        self._client = self._make_client()
        self._announce()
        self._nobody()  # the broker may remember people of the last time
        self._client.connect_async(settings.host, settings.port, _KEEPALIVE)
        self._client.loop_start()
        self._follower = threading.Thread(target=self._follow, name="edgemask-mqtt", daemon=True)
        self._sender = threading.Thread(target=self._send, name="edgemask-mqtt-send", daemon=True)
        self._follower.start()
        self._sender.start()

    def event(self, record: dict[str, Any]) -> None:
        """Publish an event of ``watch``; never waits."""
        self._outbox.add_event(self.topics.event, encode(record))

    def occupancy(self, slug: str, count: int) -> None:
        """Publish how many are in a zone; never waits."""
        self._outbox.set_state(self.topics.zone(slug), encode(payloads.zone_state(slug, count)))

    def status(self) -> dict[str, Any]:
        """Return state and counters, JSON-ready."""
        broker = f"{self._settings.host}:{self._settings.port}"
        counters = {"sent": self.sent, "dropped_events": self._outbox.dropped}
        return {"state": self.state, "broker": broker, **counters}

    def stop(self, timeout: float = 4.0) -> None:
        """Send what waits, say ``offline`` and hang up, all within `timeout` seconds.

        Nothing can interrupt a client that is looking up a name: its thread is left behind then.
        """
        deadline = time.monotonic() + timeout

        def left(share: float = 1.0) -> float:
            return max(0.0, deadline - time.monotonic()) * share

        self._results.close()
        self._stopping.set()
        self._outbox.close()
        self._follower.join(left(0.25))
        self._sender.join(left(0.5))
        if self._connected.is_set():
            farewell = self._client.publish(self.topics.status, b"offline", qos=1, retain=True)
            with suppress(ValueError, RuntimeError):
                farewell.wait_for_publish(left(0.5))
        self._client.disconnect()
        half = time.monotonic() + left(0.5)
        while self._connected.is_set() and time.monotonic() < half:
            time.sleep(0.02)
        if (hanging := self._client.socket()) is not None:
            # A broker that no longer reads would hold the client's thread until the keep-alive.
            with suppress(OSError):
                hanging.shutdown(socket.SHUT_RDWR)
        closer = threading.Thread(target=self._client.loop_stop, daemon=True)
        closer.start()
        closer.join(left())
        # The client closes its last two descriptors when it is freed: at once, if it does not point
        # back to this object.
        self._client.on_connect = self._client.on_connect_fail = self._client.on_disconnect = None
        self.state = "stopped"

    def _make_client(self) -> Any:
        try:
            from paho.mqtt import client as paho
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise RuntimeUnavailable(
                f"MQTT needs the package paho-mqtt 2, which does not import ({error}); "
                "install it: pip install 'edgemask[mqtt]'"
            ) from error
        # The same name after a crash: the broker then drops the dead connection, and its last will
        # comes before the new "online", not after it.
        client = paho.Client(CallbackAPIVersion.VERSION2, f"edgemask-{self.topics.node}")
        settings = self._settings
        if settings.username:
            client.username_pw_set(settings.username, mqtt_password(settings))
        if settings.tls:
            try:
                client.tls_set(None if settings.ca_file is None else str(settings.ca_file))
            except OSError as error:
                raise SourceError(
                    f"mqtt.ca_file {settings.ca_file} cannot be used ({error}): give a certificate "
                    "in PEM format"
                ) from error
        client.will_set(self.topics.status, b"offline", qos=1, retain=True)
        client.reconnect_delay_set(*_BACK_OFF)
        client.connect_timeout = _CONNECT_TIMEOUT
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        return client

    def _announce(self) -> None:
        """Say that this board is there, and tell Home Assistant what it measures."""
        self._outbox.set_state(self.topics.status, b"online")
        if self._settings.discovery:
            messages = payloads.discovery(
                self.topics, self._classes, self._zones, temperature=self._temperature
            )
            for topic, content in messages.items():
                self._outbox.set_state(topic, encode(content))

    def _nobody(self) -> None:
        self._outbox.set_state(self.topics.counts, encode(payloads.counts([], self._classes)))

    def _follow(self) -> None:
        """Turn results into states, and go on saying how the board is when they have ended."""
        diagnosed, ended, trouble = 0.0, False, ""
        silence = Silence(_SILENCE)
        while not self._stopping.is_set():
            result = self._results.get(0.5)
            now = time.monotonic()
            try:
                if not diagnosed or now - diagnosed >= self._settings.diagnostics_seconds:
                    diagnosed = now
                    self._diagnose()
                if result is not None:
                    silence.heard(now)
                    self._tell(result, now)
                elif silence.begins(now):  # whoever was there, nobody sees them any more
                    self._nobody()
                if self._results.finished and not ended:
                    ended = True
                    self._nobody()
                    self._diagnose()
            except Exception as error:  # in a thread, nobody else would hear of it
                found = f"mqtt: a result was not published ({type(error).__name__}: {error})"
                if found != trouble:
                    trouble = found
                    self._report(found)
            if self._results.finished:
                self._stopping.wait(0.5)

    def _tell(self, result: Result, now: float) -> None:
        """Turn one result into states."""
        wanted = set(self._settings.classes)
        names = [n for n in result.instances.class_names if not wanted or n in wanted]
        fresh = sorted(set(names) - set(self._classes))
        if fresh:
            self._classes += fresh
            self._announce()
        self._outbox.set_state(self.topics.counts, encode(payloads.counts(names, self._classes)))
        # Nothing after nothing is no news; nothing after something is, and must not be missed.
        wait = self._detected + 1 / self._settings.max_rate - now if names else 0.0
        if self._settings.detections and (names or self._shown) and wait <= 0:
            self._detected, self._shown = now, bool(names)
            content = encode(payloads.detections(result, wanted))
            self._outbox.set_state(self.topics.detections, content, retain=False)

    def _diagnose(self) -> None:
        content = payloads.diagnostics(self._status())
        if content["temperature_c"] is not None and not self._temperature:
            self._temperature = True
            self._announce()
        self._outbox.set_state(self.topics.diagnostics, encode(content))

    def _send(self) -> None:
        """Hand over one message after the other, the next when the one before is on its way.

        The client's own queue has no bound, so it never holds more than one message.
        """
        while True:
            if not self._connected.wait(0.2):
                if self._stopping.is_set():
                    return
                continue
            message = self._outbox.take(0.5)
            if message is None:
                if self._stopping.is_set():
                    return
                continue
            info = self._client.publish(
                message.topic, message.payload, qos=message.qos, retain=message.retain
            )
            if info.rc:
                # An event is in the client's hands by now, which sends it after reconnecting.
                if not message.qos:
                    self._outbox.put_back(message)
                self._stopping.wait(0.1)
                continue
            while self._connected.is_set() and not self._stopping.is_set():
                try:
                    info.wait_for_publish(0.5)
                except (ValueError, RuntimeError):  # lost with its connection
                    break
                if info.is_published():
                    self.sent += 1
                    break

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._change(f"refused: {reason}")
            return
        # What was sent before may be lost with the old connection or the old broker.
        self._outbox.repeat()
        self._connected.set()
        self._change("connected")

    def _on_connect_fail(self, client: Any, data: Any) -> None:
        self._change("disconnected: the broker cannot be reached")

    def _on_disconnect(
        self, client: Any, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        self._connected.clear()
        if not self._stopping.is_set() and not self.state.startswith("refused"):
            self._change(f"disconnected: {reason}")

    def _change(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self._report(f"mqtt {self._settings.host}:{self._settings.port}: {state}")
