"""Motion JPEG over HTTP, from a server of our own on the loopback interface."""

from __future__ import annotations

import base64
import hashlib
import io
import socket
import threading
import time
import traceback
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from edgemask.errors import InputError, SourceError, SourceTimeout
from edgemask.sources import open_source
from edgemask.sources.mjpeg import open_http


def jpeg(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 24), (value, value, value)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


BASIC = {"/secret": b"me:hunter2", "/quoted": "J. Doe:p@ss/wörd:%".encode()}


def md5(*parts: str) -> str:
    return hashlib.md5(":".join(parts).encode()).hexdigest()


def digest_is_good(given: str) -> bool:
    """RFC 2069's, of user me with the password p@ss."""
    kind, _, rest = given.partition(" ")
    fields = urllib.request.parse_keqv_list(urllib.request.parse_http_list(rest))
    wanted = md5(md5("me", "camera", "p@ss"), "n0nce", md5("GET", "/digest"))
    return kind == "Digest" and fields.get("response") == wanted


class Handler(BaseHTTPRequestHandler):
    """Sends ten pictures that get brighter; what is special about them is in the path."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        given = self.headers.get("Authorization", "")
        wanted = "Basic " + base64.b64encode(BASIC.get(path, b"")).decode()
        if path in BASIC and given != wanted:
            self.refuse('Basic realm="camera"')
            return
        if path == "/digest" and not digest_is_good(given):
            self.refuse('Digest realm="camera", nonce="n0nce"')
            return
        if path == "/none":
            self.send_error(404)
            return
        if path.startswith("/status/"):
            self.send_error(int(path.removeprefix("/status/")))
            return
        if path in ("/page", "/kept"):
            self.send_response(200 if path == "/page" else 403)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            if not self.connection.recv(1):
                self.server.left.set()  # type: ignore[attr-defined]
            return
        self.send_response(200)
        if path == "/one":
            self.send_header("Content-Type", "image/jpeg")
            self.end_headers()
            self.wfile.write(jpeg(100))
            return
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(10):
            if path == "/stall" and number == 2:
                self.server.stop.wait(20)  # type: ignore[attr-defined]
            image = jpeg(number * 20)
            if path == "/damaged" and number % 2:
                # Cut off in the header of the image, or in its pixels.
                image = image[: 200 if number % 4 == 1 else -20]
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + image + b"\r\n")
            except OSError:
                return
            time.sleep(0.02)

    def refuse(self, challenge: str) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", challenge)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.stop, server.left = threading.Event(), threading.Event()
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def address(server) -> str:
    return f"127.0.0.1:{server.server_port}"


def value(frame) -> int:
    return round(float(np.mean(frame.rgb)))


def test_stream(address):
    with open_source(f"http://{address}/live") as source:
        frames = list(source)
        assert source.live
        assert source.name == f"http://{address}/live"
    assert frames[0].rgb.shape == (24, 32, 3)
    assert len(frames) + source.dropped == 10
    for frame in frames:
        assert frame.name == f"127.0.0.1-{frame.index:06d}"
        assert abs(value(frame) - 20 * frame.index) <= 2


def test_one_picture(address):
    with open_source(f"http://{address}/one") as source:
        assert [value(frame) for frame in source] == [100]


def test_slow_reader_gets_the_newest(address):
    with open_source(f"http://{address}/live") as source:
        end = time.monotonic() + 20
        while source.dropped < 9 and time.monotonic() < end:
            time.sleep(0.02)
        (frame,) = list(source)
    assert (frame.index, source.dropped) == (9, 9)


def test_damaged_pictures_are_left_out(address):
    with open_source(f"http://{address}/damaged") as source:
        frames = list(source)
    assert len(frames) >= 2
    for frame in frames:
        assert value(frame) % 40 <= 2 or value(frame) % 40 >= 38


def test_stream_that_stalls(address):
    with open_source(f"http://{address}/stall", timeout=0.3) as source:
        assert source.read() is not None
        with pytest.raises(SourceTimeout, match=r"sent nothing for 0\.3 s"):
            list(source)


def test_password(address):
    with open_source(f"http://me:hunter2@{address}/secret") as source:
        assert source.read() is not None
        assert "hunter2" not in source.name


def test_user_and_password_are_unquoted(address) -> None:
    with open_source(f"http://J.%20Doe:p%40ss%2Fw%C3%B6rd:%25@{address}/quoted") as source:
        assert source.read() is not None


def test_digest(address) -> None:
    with open_source(f"http://me:p%40ss@{address}/digest") as source:
        assert source.read() is not None
    with pytest.raises(SourceError, match="answers 401"):
        open_source(f"http://me:pass@{address}/digest")


@pytest.mark.parametrize(
    ("path", "cure"),
    [
        ("secret", "check user name and password, http://USER:PASSWORD@host/"),
        ("status/403", "check user name and password, http://USER:PASSWORD@host/"),
        ("status/404", "check the URL"),
        ("status/500", "check the URL"),
    ],
)
def test_what_to_check_when_it_refuses(address, path: str, cure: str) -> None:
    with pytest.raises(SourceError, match=rf"answers \d+ .*: {cure}"):
        open_http(f"http://{address}/{path}")


def test_something_else_is_let_go(server, address) -> None:
    assert open_http(f"http://{address}/page") is None
    assert server.left.wait(20)


def test_who_refuses_is_let_go(server, address) -> None:
    with pytest.raises(SourceError, match="answers 403") as refused:
        open_http(f"http://{address}/kept")
    assert server.left.wait(20)
    assert refused.value  # which keeps the answer that it came from


def test_a_server_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(SourceTimeout, match=r"sent nothing for 0\.1 s: check its power"):
            open_http(f"http://127.0.0.1:{port}/live", timeout=0.1)


def test_a_host_that_does_not_answer(monkeypatch) -> None:
    """urllib wraps what happens while it connects."""

    def connect(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(SourceTimeout, match="sent nothing for 5 s: check its power"):
        open_http("http://127.0.0.1/live")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://me:hunter3@{}/secret", "user name and password"),
        ("http://me:hunter3@{}/none?token=hunter3", "answers 404"),
        ("http://me:hunter3@127.0.0.1:1/", "cannot be reached"),
        ("http://me:hunter3@no-such-host.invalid/", "cannot be reached"),
    ],
)
def test_no_error_tells_the_password(address, url, words):
    with pytest.raises(SourceError, match=words) as caught:
        open_source(url.format(address), timeout=3)
    text = "".join(traceback.format_exception(caught.value))
    # The line of this test that has the URL is no part of what a user sees.
    shown = "\n".join(line for line in text.splitlines() if "File" not in line)
    assert "hunter3" not in shown
    assert "\n" not in str(caught.value)


def test_options_follow_a_hash(address):
    with open_source(f"http://{address}/live?size=1#timeout=2") as source:
        assert source.read() is not None
    with pytest.raises(InputError, match="did you mean timeout"):
        open_source(f"http://me:hunter3@{address}/live#timeot=2")
