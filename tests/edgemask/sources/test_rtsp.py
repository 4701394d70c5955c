"""RTSP, from a small server of our own that asks for a password and sends MPEG-TS over RTP."""

from __future__ import annotations

import base64
import socketserver
import struct
import threading
import time

import numpy as np
import pytest

from edgemask.errors import SourceError, SourceTimeout
from edgemask.sources import open_source

av = pytest.importorskip("av", reason="needs PyAV: pip install 'edgemask[video]'")

FRAMES = 40
PASSWORD = "Basic " + base64.b64encode(b"me:hunter/2").decode()


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """An MPEG transport stream of grey frames that get brighter."""
    path = tmp_path_factory.mktemp("rtsp") / "film.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + 5 * n, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


class Camera(socketserver.StreamRequestHandler):
    """Answers one client, with its film over the same connection (RFC 2326, section 10.12)."""

    def handle(self) -> None:
        while request := self.rfile.readline().decode().split():
            headers = {}
            while line := self.rfile.readline().decode().strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            verb, number = request[0], headers.get("cseq", "0")
            assert "hunter" not in request[1]
            if verb != "OPTIONS" and headers.get("authorization") != PASSWORD:
                self.answer(401, number, 'WWW-Authenticate: Basic realm="camera"')
            elif verb == "DESCRIBE":
                body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n"
                body += "m=video 0 RTP/AVP 33\r\na=control:track\r\n"
                self.answer(200, number, "Content-Type: application/sdp", body=body)
            elif verb == "SETUP":
                transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1"
                self.answer(200, number, "Session: 1", transport)
            else:
                self.answer(200, number, "Session: 1", "Public: DESCRIBE, SETUP, PLAY, TEARDOWN")
            if verb == "PLAY":
                self.play()
                return

    def answer(self, code: int, number: str, *lines: str, body: str = "") -> None:
        head = [f"RTSP/1.0 {code} text", f"CSeq: {number}", *lines, f"Content-Length: {len(body)}"]
        self.wfile.write(("\r\n".join(head) + "\r\n\r\n" + body).encode())

    def play(self) -> None:
        film, piece = self.server.film, 7 * 188
        for number, start in enumerate(range(0, len(film), piece)):
            header = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, number * 900, 1)
            packet = header + film[start : start + piece]
            try:
                self.wfile.write(b"$\0" + struct.pack(">H", len(packet)) + packet)
            except OSError:  # the client has had enough
                return
            time.sleep(0.002)
        self.server.ended.wait(20 if self.server.stalls else 0)


@pytest.fixture
def server(film):
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads, server.film, server.stalls = True, film, False
    server.ended = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()


def url(server, password: str = "hunter%2F2") -> str:
    return f"rtsp://me:{password}@127.0.0.1:{server.server_address[1]}/live"


def test_frames_of_a_camera(server):
    with open_source(url(server), timeout=10) as source:
        assert source.live
        assert "hunter" not in source.name
        frames = list(source)
    assert len(frames) + source.dropped >= FRAMES / 2
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
    assert frames[-1].name == f"127.0.0.1-{frames[-1].index:06d}"
    assert frames[-1].rgb.shape == (48, 64, 3)
    values = [float(frame.rgb.mean()) for frame in frames]
    assert values == sorted(values)
    assert values[-1] > 150


def test_wrong_password(server):
    with pytest.raises(SourceError) as caught:
        open_source(url(server, "hunter3"), timeout=10)
    assert "refuses the user name or password" in str(caught.value)
    assert "hunter" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_camera_that_falls_silent(server):
    server.stalls = True
    with (
        open_source(url(server), timeout=1) as source,
        pytest.raises(SourceTimeout, match="sent nothing in time"),
    ):
        list(source)
