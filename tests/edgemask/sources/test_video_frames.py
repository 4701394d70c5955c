"""Names, times, colours and options of videos and streams, from files that the tests encode."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemask.sources import open_source, video

av = pytest.importorskip("av", reason="needs PyAV: pip install 'edgemask[video]'")

FRAMES = 5


def encode(
    path: Path, codec: str = "mpeg4", size: tuple[int, int] = (64, 48), matrix: str | None = None
) -> str:
    """Write a red video of 10 frames a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 8_000_000
        if matrix is not None:
            stream.codec_context.colorspace = getattr(av.video.reformatter.Colorspace, matrix)
        red = (81, 90, 240)  # of BT.601
        for _ in range(FRAMES):
            frame = av.VideoFrame(*size, "yuv420p")
            for plane, value in zip(frame.planes, red, strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("video") / "clip.mp4")


def held(path: str) -> bool:
    """Whether this process has a file open."""
    links = Path("/proc/self/fd").iterdir()
    return Path(path).resolve() in [link.resolve() for link in links]


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


@needs_proc
@pytest.mark.parametrize("kind", [video.VideoFile, video.NetworkStream])
def test_close_closes_the_file(clip, kind):
    source = kind(clip)
    source.read()
    if kind is video.VideoFile:
        assert held(clip)
    source.close()
    assert not held(clip)


def test_close_waits_for_a_read_that_is_under_way(monkeypatch):
    """FFmpeg does not survive that a file is closed while it reads it."""
    inside, go_on, events = threading.Event(), threading.Event(), []

    class Slow:
        count = rate = None

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def use_threads(self) -> None:
            pass

        def frames(self) -> Any:
            inside.set()
            go_on.wait(20)
            events.append("read")
            yield av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))

        def close(self) -> None:
            events.append("closed")

    monkeypatch.setattr(video, "Reader", Slow)
    source = video.VideoFile("clip.mp4")
    threads = [threading.Thread(target=source.read), threading.Thread(target=source.close)]
    threads[0].start()
    assert inside.wait(20)
    threads[1].start()
    threads[1].join(0.05)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert events == ["read", "closed"]


def test_stream_keeps_the_times_and_knows_its_end(clip):
    with video.NetworkStream(clip) as source:
        assert source.finite
        frames = list(source)
    assert frames[-1].index == FRAMES - 1
    assert [frame.sensor_ns for frame in frames] == [frame.index * 10**8 for frame in frames]
    assert all(abs(time.time_ns() - frame.wall_ns) < 60 * 10**9 for frame in frames)
    assert frames[-1].name == f"stream-{FRAMES - 1:06d}"  # there is no host


def test_time_of_arrival(clip):
    with video.VideoFile(clip) as source:
        before = time.time_ns()
        frame = source.read()
    assert before <= frame.wall_ns <= time.time_ns()


@pytest.mark.skipif("libx264" not in av.codecs_available, reason="needs x264")
def test_raw_h264_has_no_times_but_a_rate(tmp_path):
    with open_source(encode(tmp_path / "raw.h264", "libx264")) as source:
        assert source.length is None
        assert source.rate == 25  # what FFmpeg takes where nothing says it
        frames = list(source)
    assert [frame.sensor_ns for frame in frames] == [n * 40_000_000 for n in range(FRAMES)]


@pytest.mark.skipif("libx264" not in av.codecs_available, reason="needs x264")
def test_raw_h264_without_a_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(video.Reader, "rate", None)
    with open_source(encode(tmp_path / "raw.h264", "libx264")) as source:
        assert source.read().sensor_ns is None


def test_length_that_the_file_does_not_say(tmp_path):
    with open_source(encode(tmp_path / "clip.mkv")) as source:
        assert source.length is None
        assert len(list(source)) == FRAMES


@pytest.mark.parametrize(
    ("size", "matrix"), [((1280, 720), "ITU601"), ((64, 48), "ITU601"), ((64, 704), None)]
)
def test_colours_of_bt601(tmp_path, size, matrix):
    """Where the file says so, whatever its size, and below 720 lines where it says nothing."""
    with open_source(encode(tmp_path / "red.mkv", "mpeg2video", size, matrix)) as source:
        rgb = source.read().rgb
    np.testing.assert_allclose(rgb[20, 20].astype(int), (255, 0, 0), atol=6)


@pytest.fixture
def asked(clip, monkeypatch):
    """What FFmpeg was asked for; it gets a clip instead of the address."""
    real, asked = av.open, {}

    def opened(url: str, **options: Any) -> Any:
        asked.update(options, url=url)
        return real(clip)

    monkeypatch.setattr(av, "open", opened)
    return asked


def test_video_on_a_server(asked):
    with open_source("https://me:hunter2@host/a/film.mp4?token=b/c.d#timeout=2") as source:
        assert source.read().name == "film-000000"
        assert "hunter2" not in source.name
    assert asked == {"url": "https://me:hunter2@host/a/film.mp4?token=b/c.d", "timeout": 2}


@pytest.mark.parametrize("name", ["a#b.mp4", "a;b.mp4", "a?b.mp4"])
def test_file_whose_name_looks_like_an_address(asked, name):
    with video.VideoFile(name) as source:
        assert source.name == name
        assert source.read().name == f"{name[:3]}-000000"
    assert asked == {"url": os.path.abspath(name)}


@pytest.mark.parametrize(
    ("uri", "transport"),
    [
        ("rtsp://me:hunter2@host:8554/live", "tcp"),
        ("rtsp://me:hunter2@host:8554/live#transport=udp&timeout=5", "udp"),
        ("RTSPS://me:hunter2@host:8554/live", "tcp"),
    ],
)
def test_options_of_rtsp(asked, uri, transport):
    with open_source(uri) as source:
        assert source.read().name.startswith("host-")
        assert "hunter2" not in source.name
    assert asked["url"] == uri.partition("#")[0]
    assert asked["timeout"] == 5
    assert asked["options"] == {"flags": "low_delay", "rtsp_transport": transport}


def test_options_of_another_stream(asked):
    with video.NetworkStream("http://host/live", timeout=2) as source:
        assert source.live
    assert asked["timeout"] == 2
    assert "rtsp_transport" not in asked["options"]
