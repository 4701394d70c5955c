"""Clients that are many, slow or silent: the network goes on, and each keeps to its share."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from live_fakes import Opener, SlowSegmenter, clients, parts, until

from edgemask.errors import CameraMissing
from edgemask.serve import handler as handler_module
from edgemask.serve import server as module
from edgemask.serve.handler import Handler

MakeSite = Callable[..., Any]


def test_two_hundred_clients(make_site: MakeSite) -> None:
    site = make_site(segmenter=SlowSegmenter(seconds=0.02))
    until(site.engine.processing)
    address = ("127.0.0.1", site.server.port)
    request = b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sockets, answers = [], []
    for _ in range(200):
        raw = socket.create_connection(address, 5)
        raw.sendall(request)
        sockets.append(raw)
    for raw in sockets:
        try:
            answers.append(raw.recv(12).split()[1])
        except (ConnectionResetError, IndexError):  # turned away before it had sent all
            answers.append(b"503")
    assert answers.count(b"200") == module.MAX_STREAMS
    assert answers.count(b"503") == 200 - module.MAX_STREAMS
    assert clients() <= module.MAX_STREAMS + module._SPARE
    before, start = site.engine.status()["frames"], time.monotonic()
    until(lambda: site.engine.status()["frames"] >= before + 10, 10)
    assert time.monotonic() - start < 3  # 0.2 s on an idle machine
    # All streams are taken, and still it answers whether it is well.
    assert site.get("/healthz")[0] == 200
    for raw in sockets:
        raw.close()
    until(lambda: clients() == 0)
    response = site.open("GET", "/stream.mjpg")
    assert len(parts(response, 1)) == 1
    response.close()


def test_a_client_that_never_reads(make_site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "timeout", 0.5)
    monkeypatch.setattr(module, "_SEND_BUFFER", 4096)
    monkeypatch.setattr("edgemask.serve.publisher.jpeg", lambda frame, instances: bytes(300_000))
    site = make_site()
    until(site.engine.processing)
    idle = socket.socket()
    idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    idle.connect(("127.0.0.1", site.server.port))
    idle.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    until(lambda: clients() == 1)
    before = site.engine.status()["frames"]
    until(lambda: clients() == 0)  # it has lost its place
    assert site.engine.status()["frames"] > before + 20
    idle.close()


def test_a_slow_client_misses_pictures_and_stays(make_site: MakeSite) -> None:
    site = make_site()
    until(site.engine.processing)
    response = site.open("GET", "/stream.mjpg")
    parts(response, 1)
    publisher = site.server._publisher
    before = publisher.pictures.number
    until(lambda: publisher.pictures.number > before + 50)
    response.close()
    until(lambda: publisher.pictures.readers == 0)


def test_a_client_that_goes_while_no_picture_comes_gives_its_place_back(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler_module, "_WAIT_SECONDS", 0.05)
    site = make_site(Opener(CameraMissing("no camera 0: plug it in")), max_streams=2)
    for _ in range(3):
        responses = [site.open("GET", "/stream.mjpg") for _ in range(2)]
        assert [response.status for response in responses] == [200, 200]
        assert site.open("GET", "/events").status == 503
        time.sleep(0.2)
        assert clients() == 2  # who only waits stays
        for response in responses:
            response.close()
        until(lambda: clients() == 0)


def test_the_head_of_a_request_is_bounded(site: Any) -> None:
    taken = 0
    with socket.create_connection(("127.0.0.1", site.server.port), 5) as raw:
        try:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            for n in range(90):
                raw.sendall(b"X-%d: " % n + b"a" * 60_000 + b"\r\n")
                taken += 1
            raw.sendall(b"\r\n")
        except OSError:  # it was hung up on
            pass
        try:
            answer = raw.recv(65536)
        except OSError:
            answer = b""
    assert not answer or answer.split()[1] == b"431"
    usual = {f"X-{n}": "a" * 100 for n in range(50)}
    assert site.get("/", **usual)[0] == 200


def test_clients_that_leave_the_network_are_noticed(make_site: MakeSite) -> None:
    site = make_site()
    response = site.open("GET", "/stream.mjpg")
    (connection,) = site.server._http._clients
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    response.close()


def test_a_client_that_sends_its_request_byte_by_byte(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HEAD_SECONDS", 0.4)
    site = make_site()
    with socket.create_connection(("127.0.0.1", site.server.port), 5) as raw:
        until(lambda: clients() == 1)
        start = time.monotonic()
        while clients():
            try:
                raw.send(b"G")
            except OSError:
                break
            assert time.monotonic() - start < 4
            time.sleep(0.05)
    until(lambda: clients() == 0)


def test_streams_outlive_the_limit_on_requests(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HEAD_SECONDS", 0.1)
    site = make_site()
    response = site.open("GET", "/stream.mjpg")
    start = time.monotonic()
    assert response.readline()
    while time.monotonic() - start < 0.8:
        assert response.read(100)
    response.close()
