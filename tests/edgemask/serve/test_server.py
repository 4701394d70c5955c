"""The server over real connections: pages, streams, bounds, clients that misbehave."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from live_fakes import FakeBoard, FakeSource, Opener, SlowSegmenter, clients, parts, until
from PIL import Image

from edgemask.errors import CameraMissing, InputError, ModelError
from edgemask.live.engine import Engine
from edgemask.serve.server import Server

MakeSite = Callable[..., Any]
TOKEN = "a-token-of-some-length"


def test_page_is_whole_and_may_run_only_its_own_script(site: Any) -> None:
    status, headers, body = site.get("/")
    assert (status, headers.get_content_type()) == (200, "text/html")
    text = body.decode()
    assert not re.search(r"""(src|href)=["'](https?:)?//""", text)  # nothing from elsewhere
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert " style=" not in text  # the policy would ignore it
    assert not re.search(r"\son\w+=", text)
    for name, value in (
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "no-store"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ):
        assert headers[name] == value
    assert "Python" not in headers["Server"]


def test_stream(site: Any) -> None:
    response = site.open("GET", "/stream.mjpg")
    assert response.status == 200
    assert response.headers.get_content_type() == "multipart/x-mixed-replace"
    pictures = parts(response, 5)
    response.close()
    images = [np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures]
    assert {image.shape for image in images} == {(48, 64, 3)}
    assert len(set(pictures)) == 5


def test_events(site: Any) -> None:
    response = site.open("GET", "/events")
    assert response.headers.get_content_type() == "text/event-stream"
    seen: dict[str, list[Any]] = {"frame": [], "status": []}
    while len(seen["frame"]) < 4:
        line = response.readline().decode()
        if line.startswith("event: "):
            data = response.readline().decode()
            seen[line[7:].strip()].append(json.loads(data.removeprefix("data: ")))
            assert response.readline() == b"\n"
    response.close()
    assert seen["status"][0]["source"]["state"] == "running"
    sequence = [record["sequence"] for record in seen["frame"]]
    assert sequence == sorted(set(sequence))
    assert seen["frame"][0]["instances"][0]["class_name"] == "person"


def test_snapshot_status_health_metrics(site: Any) -> None:
    status, headers, body = site.get("/snapshot.jpg")
    assert (status, headers.get_content_type()) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(body)).size == (64, 48)
    assert json.loads(site.get("/status")[2])["model"]["name"] == "fake"
    status, _, body = site.get("/healthz")
    assert (status, json.loads(body)["processing"]) == (200, True)
    status, headers, body = site.get("/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"edgemask_processing 1\n" in body


def test_health_is_bad_while_no_frame_is_processed(make_site: MakeSite) -> None:
    site = make_site(Opener(CameraMissing("no camera 0: plug it in")))
    until(lambda: site.engine.status()["source"]["failures"])
    status, _, body = site.get("/healthz")
    assert status == 503
    assert json.loads(body)["source"]["error"] == "no camera 0: plug it in"
    assert b"edgemask_processing 0\n" in site.get("/metrics")[2]


def test_health_is_bad_when_the_network_always_fails(make_site: MakeSite) -> None:
    site = make_site(segmenter=SlowSegmenter(fail_on=lambda number: True))
    until(lambda: site.engine.status()["errors"] > 3)
    assert site.get("/healthz")[0] == 503


def test_health_turns_bad_when_the_source_ends(make_site: MakeSite) -> None:
    site = make_site(Opener(lambda: FakeSource(live=False, frames=3)))
    assert site.engine.wait(5)
    assert site.get("/healthz")[0] == 503
    assert site.get("/snapshot.jpg")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/..%2f..%2fetc/passwd", "//etc/passwd", "/page.html", "/stream.mjpg/",
     "/./", "/%2e%2e/", "/settings/../", "/static/x", "/index.html", "/\x7f", "/..;/", "*",
     "http://127.0.0.1/", "/stream.mjpg%00", "/STATUS", "/?/../x/../../etc/passwd"],
)  # fmt: skip
def test_nothing_else_is_there(site: Any, path: str) -> None:
    with socket.create_connection(("127.0.0.1", site.server.port), 5) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("latin-1"))
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert b"root:" not in answer
    wanted = b"200" if path.startswith("/?") else b"404"
    assert answer.split()[1] == wanted


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/", 405), ("GET", "/settings", 405), ("PUT", "/settings", 501),
     ("HEAD", "/settings", 405), ("OPTIONS", "/settings", 501), ("CONNECT", "/", 501)],
)  # fmt: skip
def test_other_methods(site: Any, method: str, path: str, status: int) -> None:
    response = site.open(method, path)
    assert response.status == status
    if status == 405:
        assert response.headers["Allow"] in ("GET, HEAD", "POST")
    response.close()


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/metrics", "/status", "/snapshot.jpg", "/stream.mjpg", "/events"]
)
def test_head_is_get_without_the_body(site: Any, path: str) -> None:
    until(lambda: site.get("/healthz")[0] == 200)
    got = site.open("GET", path)
    with socket.create_connection(("127.0.0.1", site.server.port), 5) as raw:
        raw.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b"")).decode()
    head, _, body = answer.partition("\r\n\r\n")
    assert body == ""
    assert head.split()[1] == str(got.status) == "200"
    assert f"Content-Type: {got.headers['Content-Type']}" in head
    got.close()


def test_status_of_what_follows_the_engine(make_site: MakeSite) -> None:
    site = make_site(beside=lambda: {"sinks": {"mqtt": {"state": "connected"}}})
    until(site.engine.processing)
    status = json.loads(site.get("/status")[2])
    assert status["sinks"] == {"mqtt": {"state": "connected"}}
    assert status["source"]["state"] == "running"


def test_head_of_what_is_not_there(site: Any) -> None:
    with site.open("HEAD", "/none") as response:
        assert (response.status, response.read()) == (404, b"")


@pytest.mark.parametrize(
    "request_bytes",
    [b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, b"GET\r\n\r\n",
     b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n",
     b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost" + b"x" * 70000],
)  # fmt: skip
def test_garbage_ends_its_own_connection_only(site: Any, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", site.server.port), 5) as raw:
        answer = b""
        with contextlib.suppress(OSError):  # it may hang up before it has read all of that
            raw.sendall(request_bytes)
            raw.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert b"Traceback" not in answer
    assert site.get("/healthz")[0] == 200


def test_settings(site: Any) -> None:
    status, body = site.post({"score_threshold": 0.7, "max_fps": 50, "short_side": 256})
    assert status == 200
    assert json.loads(body)["settings"]["score_threshold"] == 0.7
    until(lambda: json.loads(site.get("/status")[2])["effective"]["short_side"] == 256)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"score_threshold": 2}, 400),
        ({"pack": "/etc/passwd"}, 400),
        ({"self": 1}, 400),
        ({"": 1}, 400),
        ([], 400),
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 4000, 400),
        (b'{"score_threshold": NaN}', 400),
        (b" " * 5000, 413),
    ],
)
def test_settings_that_make_no_sense(site: Any, body: Any, status: int) -> None:
    before = site.engine.status()["settings"]
    assert site.post(body)[0] == status
    assert site.engine.status()["settings"] == before


def test_the_model_is_changed_by_the_same_route(make_site: MakeSite) -> None:
    segmenters = {name: SlowSegmenter(name=name) for name in ("people", "coco80")}

    def broken() -> Any:
        raise ModelError("it is damaged")

    makers: dict[str, Any] = {name: lambda name=name: segmenters[name] for name in segmenters}
    chosen = {"models": {**makers, "broken": broken}, "model": "people"}
    site = make_site(segmenter=segmenters["people"], engine_options=chosen)
    until(site.engine.processing)
    assert 'model="people"' in site.get("/metrics")[2].decode()
    status, body = site.post({"model": "coco80"})
    assert (status, json.loads(body)["settings"]["model"]) == (200, "coco80")
    until(lambda: json.loads(site.get("/status")[2])["model"]["name"] == "coco80")
    assert 'model="coco80"' in site.get("/metrics")[2].decode()
    for bad in ("/etc/passwd", "../people", "people.zip", None, 0):
        status, body = site.post({"model": bad})
        assert status == 400
        assert body.endswith("; give one of broken, coco80, people\n")
    assert site.post({"model": "broken"})[0] == 200
    until(lambda: json.loads(site.get("/status")[2])["model"]["error"])
    assert json.loads(site.get("/status")[2])["settings"]["model"] == "coco80"
    assert site.post({"model": "people"}, Origin="http://evil.example")[0] == 403


def test_settings_from_elsewhere(site: Any) -> None:
    before = site.engine.status()["settings"]
    good = {"score_threshold": 0.9}
    assert site.post(good, Content_Type="text/plain")[0] == 415
    assert site.post(good, Content_Type="application/x-www-form-urlencoded")[0] == 415
    assert site.post(good, Origin="http://evil.example")[0] == 403
    assert site.post(good, Sec_Fetch_Site="cross-site")[0] == 403
    assert site.post(good, Host="evil.example")[0] == 421
    assert site.get("/settings?score_threshold=0.9")[0] == 405
    assert site.engine.status()["settings"] == before
    own = f"http://127.0.0.1:{site.server.port}"
    assert site.post(good, Origin=own, Sec_Fetch_Site="same-origin")[0] == 200


def test_without_a_length_nothing_is_read(site: Any) -> None:
    head = "POST /settings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for more in (
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "Content-Length: -1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", site.server.port), 5) as raw:
            raw.sendall((head + more).encode())
            assert raw.recv(100).split()[1] == b"411"


def test_token(make_site: MakeSite) -> None:
    site = make_site(token=TOKEN)
    for path in (
        "/",
        "/stream.mjpg",
        "/events",
        "/snapshot.jpg",
        "/status",
        "/healthz",
        "/metrics",
    ):
        assert site.get(path)[0] == 401
        assert site.get(f"{path}?token=wrong")[0] == 401
    assert site.post({"score_threshold": 0.9})[0] == 401
    assert site.get("/status", Authorization=f"Bearer {TOKEN}")[0] == 200
    # Any name is good for who has the token: it may have one in its network, or through a proxy.
    status, headers, _ = site.get(f"/status?token={TOKEN}", Host="camera.lan")
    assert (status, headers["Cross-Origin-Resource-Policy"]) == (200, "cross-origin")


def test_the_token_leaves_the_address_bar(make_site: MakeSite) -> None:
    site = make_site(token=TOKEN)
    status, headers, body = site.get(f"/?token={TOKEN}")
    assert (status, headers["Location"], body) == (303, "./", b"")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    name_and_value = cookie.partition(";")[0]
    status, headers, _ = site.get("/", Cookie=name_and_value)
    assert status == 200
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert site.post({"score_threshold": 0.6}, Cookie=name_and_value)[0] == 200
    assert site.get("/stream.mjpg", Cookie=name_and_value[:-1])[0] == 401


def test_other_addresses_need_a_token() -> None:
    engine = Engine(Opener(FakeSource), SlowSegmenter(), board=FakeBoard())
    with pytest.raises(InputError, match="can be reached by other machines"):
        Server(engine, host="0.0.0.0", port=0)


@pytest.mark.parametrize("host", ["ü..b", "a\0b"])
def test_what_is_no_address(host: str) -> None:
    engine = Engine(Opener(FakeSource), SlowSegmenter(), board=FakeBoard())
    with pytest.raises(InputError, match="cannot listen on"):
        Server(engine, host=host, port=0, token="0123456789abcdef")


def test_an_address_that_is_taken(site: Any) -> None:
    with pytest.raises(InputError, match=rf"port {site.server.port} .*--port"):
        Server(site.engine, port=site.server.port)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_stop_is_quick_and_leaves_nothing_behind() -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        engine = Engine(Opener(FakeSource), SlowSegmenter(), board=FakeBoard())
        server = Server(engine, port=0)
        engine.start()
        server.start()
        sockets = [socket.create_connection(("127.0.0.1", server.port), 5) for _ in range(10)]
        for n, raw in enumerate(sockets):
            path = ("/stream.mjpg", "/events", "/snapshot.jpg")[n % 3]
            if n < 8:
                raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        until(lambda: clients() >= 6)
        start = time.monotonic()
        assert engine.stop()
        assert server.stop()
        assert time.monotonic() - start < 3
        for raw in sockets:
            raw.close()
    until(lambda: threading.active_count() == threads)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_server_that_was_never_started_can_be_stopped() -> None:
    engine = Engine(Opener(FakeSource), SlowSegmenter(), board=FakeBoard())
    assert Server(engine, port=0).stop()
