"""Videos and streams through PyAV, from files that the tests encode themselves."""

from __future__ import annotations

import socket
import struct
import threading
import traceback
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from edgemask.errors import SourceError, SourceTimeout
from edgemask.sources import open_source

av = pytest.importorskip("av", reason="needs PyAV: pip install 'edgemask[video]'")

WIDTH, HEIGHT, FRAMES = 64, 48, 20


def picture(number: int) -> np.ndarray:
    """Return a grey picture that gets brighter, with a red corner at the top left."""
    rgb = np.full((HEIGHT, WIDTH, 3), 10 * number + 20, np.uint8)
    rgb[: HEIGHT // 3, : WIDTH // 3] = 200, 30, 30
    return rgb


def encode(
    path: Path, codec: str = "mpeg4", pix_fmt: str = "yuv420p", frames: int = FRAMES
) -> Path:
    """Write a video of 10 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = pix_fmt
        stream.bit_rate = 4_000_000
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def brightness(rgb: np.ndarray) -> float:
    return float(rgb[rgb.shape[0] // 2 :].mean())


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("video") / "clip.mp4")


def test_every_frame_in_order(clip):
    with open_source(clip) as source:
        assert (source.live, source.length, source.rate) == (False, FRAMES, 10)
        frames = list(source)
        assert source.read() is None
    assert [frame.index for frame in frames] == list(range(FRAMES))
    assert [frame.sensor_ns for frame in frames] == [n * 100_000_000 for n in range(FRAMES)]
    assert frames[7].name == "clip-000007"
    for number, frame in enumerate(frames):
        assert frame.rgb.shape == (HEIGHT, WIDTH, 3)
        assert frame.rgb.flags.writeable
        assert abs(brightness(frame.rgb) - brightness(picture(number))) < 4
        np.testing.assert_allclose(frame.rgb[5, 5].astype(int), (200, 30, 30), atol=12)


def test_close_in_the_middle(clip):
    source = open_source(clip)
    assert source.read().index == 0
    source.close()
    assert source.read() is None


@pytest.mark.parametrize(("size", "matrix"), [((64, 48), "bt601"), ((1280, 720), "bt709")])
def test_video_that_does_not_say_its_matrix(tmp_path, size, matrix):
    # 63 102 240 is pure red in BT.709, and 81 90 240 in BT.601.
    colour = {"bt601": (81, 90, 240), "bt709": (63, 102, 240)}[matrix]
    path = tmp_path / "red.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = size
        stream.pix_fmt, stream.bit_rate = "yuv420p", 8_000_000
        frame = av.VideoFrame(*size, "yuv420p")
        for plane, value in zip(frame.planes, colour, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_source(path) as source:
        rgb = source.read().rgb
    np.testing.assert_allclose(rgb[20, 20].astype(int), (255, 0, 0), atol=6)


def turned(content: bytes, matrix: tuple[int, ...]) -> bytes:
    """Return an MP4 file with another display matrix in its track header."""
    place = content.index(b"tkhd") + 4
    start = place + 40  # version 0: flags, two times, id, duration, layer, volume and reserves
    values = (value * (1 << (30 if n % 3 == 2 else 16)) for n, value in enumerate(matrix))
    return content[:start] + struct.pack(">9i", *values) + content[start + 36 :]


@pytest.mark.parametrize(
    ("matrix", "corner", "shape"),
    [
        ((1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0), (HEIGHT, WIDTH)),
        # As a phone held upright writes it: turn by 90 degrees clockwise to see it.
        ((0, 1, 0, -1, 0, 0, 0, 0, 1), (0, -1), (WIDTH, HEIGHT)),
        ((-1, 0, 0, 0, -1, 0, 0, 0, 1), (-1, -1), (HEIGHT, WIDTH)),
        ((0, -1, 0, 1, 0, 0, 0, 0, 1), (-1, 0), (WIDTH, HEIGHT)),
    ],
)
def test_phones_that_were_held_otherwise(clip, tmp_path, matrix, corner, shape):
    path = tmp_path / "turned.mp4"
    path.write_bytes(turned(clip.read_bytes(), matrix))
    with open_source(path) as source:
        rgb = source.read().rgb
    assert rgb.shape == (*shape, 3)
    assert rgb.flags.c_contiguous
    np.testing.assert_allclose(rgb[corner].astype(int), (200, 30, 30), atol=20)


def test_damaged_packets_are_left_out(tmp_path):
    path = encode(tmp_path / "clip.avi", "png", pix_fmt="rgb24")
    content = bytearray(path.read_bytes())
    start = content.index(b"\x89PNG", len(content) // 2)
    content[start : start + 8] = bytes(8)
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with open_source(path) as source:
            frames = list(source)
    assert FRAMES - 3 <= len(frames) < FRAMES
    assert any("damaged packets were left out" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("content", [b"", b"text, not a video" * 50, b"\0\0\0\x18ftypmp42"])
def test_no_video(tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_source(path).read()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_video(clip, tmp_path):
    path = tmp_path / "half.mp4"
    path.write_bytes(clip.read_bytes()[:2000])  # the index is at the end
    with pytest.raises(SourceError, match="damaged or incomplete"):
        open_source(path)


def test_sound_without_pictures(tmp_path):
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(SourceError, match="has no video in it"):
        open_source(path)


# ---- streams


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = self.server.content  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content = encode(tmp_path / "clip.ts", "mpeg2video").read_bytes()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_stream_that_is_no_jpeg_goes_to_ffmpeg(address):
    with open_source(f"http://me:hunter2@{address}/live") as source:
        frames = list(source)
        assert source.live
        assert "hunter2" not in source.name
        assert len(frames) + source.dropped >= FRAMES - 2
    assert frames[-1].name.startswith("127.0.0.1-")
    assert frames[-1].rgb.shape == (HEIGHT, WIDTH, 3)


def test_video_on_a_server_is_a_file(address):
    with open_source(f"http://{address}/clips/clip.ts") as source:
        assert not source.live
        names = [frame.name for frame in source]
    assert names[3] == "clip-000003"
    assert len(names) >= FRAMES - 2


def test_silent_server_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(SourceTimeout) as caught:
            open_source(f"rtsp://me:hunter2@127.0.0.1:{port}/live#timeout=0.5")
    check_secret(caught.value, f"rtsp://me:***@127.0.0.1:{port}/live")


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SourceError) as caught:
        open_source(f"rtsp://me:hunter2@127.0.0.1:{port}/live", transport="udp", timeout=5)
    check_secret(caught.value, f"rtsp://me:***@127.0.0.1:{port}/live cannot be read")


def check_secret(error: Exception, words: str) -> None:
    assert words in str(error)
    lines = traceback.format_exception(error)
    # Lines of code have the URL of this test in them; what users see has none.
    assert not any("hunter2" in line for line in lines if not line.lstrip().startswith("File"))
