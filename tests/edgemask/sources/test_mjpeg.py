"""Motion JPEG over HTTP, from a server of our own on the loopback interface."""

from __future__ import annotations

import base64
import io
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from edgemask.errors import InputError, SourceError, SourceTimeout
from edgemask.sources import open_source


def jpeg(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 24), (value, value, value)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Sends ten pictures that get brighter; what is special about them is in the path."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        wanted = "Basic " + base64.b64encode(b"me:hunter2").decode()
        if path == "/secret" and self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        if path == "/none":
            self.send_error(404)
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

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.stop = threading.Event()
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.stop.set()
    server.shutdown()
    server.server_close()


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
