"""What is said when FFmpeg fails, from a container of the tests and a clock that they turn."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgemask.errors import SourceError, SourceTimeout
from edgemask.sources import video

av = pytest.importorskip("av", reason="needs PyAV: pip install 'edgemask[video]'")

SECRET = "rtsp://me:hunter2@host/live"
NAME = "rtsp://me:***@host/live"


class Packet:
    """One packet with one frame, or with one that is damaged."""

    def __init__(self, damaged: bool = False) -> None:
        self._damaged = damaged

    def decode(self) -> list[str]:
        if self._damaged:
            raise av.error.InvalidDataError(errno.EINVAL, "Invalid data", SECRET)
        return ["frame"]


class Container:
    """What av.open returns; its packets come from a function."""

    def __init__(self, packets: Callable[[], Iterator[Packet]] = lambda: iter(())) -> None:
        self._packets = packets
        stream = SimpleNamespace(frames=0, average_rate=None)
        self.streams = SimpleNamespace(video=[stream])
        self.duration: int | None = None
        self.size: int | None = None
        self.format = SimpleNamespace(name="rtsp")

    def demux(self, stream: Any) -> Iterator[Packet]:
        return self._packets()

    def close(self) -> None:
        pass


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(video, "time", clock)
    return clock


def opens(monkeypatch: pytest.MonkeyPatch, container: Container) -> None:
    monkeypatch.setattr(av, "open", lambda *_, **__: container)


def fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(av, "open", fail)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (av.error.ExitError(1, "Immediate exit", SECRET), SourceTimeout, "sent nothing in time"),
        (av.error.TimeoutError(110, "timed out", SECRET), SourceTimeout, "sent nothing in time"),
        (av.error.HTTPForbiddenError(1, "403", SECRET), SourceError, "user name or password"),
        (av.error.HTTPUnauthorizedError(1, "401", SECRET), SourceError, "user name or password"),
        (av.error.InvalidDataError(1, "Invalid", SECRET), SourceError, "damaged or incomplete"),
        (
            av.error.HTTPNotFoundError(1, "Server returned 404 Not Found", SECRET),
            SourceError,
            "(Server returned 404 Not Found): check the address",
        ),
        (OSError(errno.ENETUNREACH, "No way there"), SourceError, "(No way there): check the addr"),
        (ValueError(SECRET), SourceError, "(ValueError): check the address"),
    ],
)
def test_reasons_why_it_cannot_be_opened(monkeypatch, error, kind, words):
    fails(monkeypatch, error)
    with pytest.raises(SourceError) as caught:
        video.Reader(SECRET, NAME, timeout=60)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(NAME)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES])
def test_path_that_cannot_be_read(monkeypatch, code):
    fails(monkeypatch, OSError(code, "reason"))
    with pytest.raises(SourceError) as caught:
        video.VideoFile("clip.mp4")
    assert str(caught.value) == "clip.mp4 cannot be read (reason): check the path"
    assert caught.value.errno == code


def read_all(reader: video.Reader) -> list[Any]:
    return list(reader.frames())


def reset() -> Exception:
    return av.error.ConnectionResetError(errno.ECONNRESET, "Connection reset by peer", SECRET)


def test_connection_that_breaks_after_a_long_time_was_not_silent(monkeypatch, clock):
    def packets():
        for _ in range(20):
            clock.now += 1
            yield Packet()
        raise reset()

    opens(monkeypatch, Container(packets))
    with pytest.raises(SourceError) as caught:
        read_all(video.Reader(SECRET, NAME, timeout=5))
    assert type(caught.value) is SourceError
    assert str(caught.value) == (
        f"{NAME} cannot be read (Connection reset by peer): check the address"
    )
    shown = traceback.format_exception(caught.value)
    assert not any("hunter2" in line for line in shown if not line.lstrip().startswith("File"))


@pytest.mark.parametrize("given", [0, 1])
def test_time_that_the_reader_takes_is_not_silence(monkeypatch, clock, given):
    """Before the first frame, too: a model may be loaded in between."""

    def packets():
        yield from [Packet()] * given
        raise reset()

    opens(monkeypatch, Container(packets))
    frames = video.Reader(SECRET, NAME, timeout=5).frames()
    for _ in range(given):
        assert next(frames) == "frame"
    clock.now += 60
    with pytest.raises(SourceError) as caught:
        next(frames)
    assert type(caught.value) is SourceError


def test_time_that_is_up_looks_like_invalid_data(monkeypatch, clock):
    def packets():
        yield Packet()
        clock.now += 5
        raise av.error.InvalidDataError(1, "Invalid data found", SECRET)

    opens(monkeypatch, Container(packets))
    with pytest.raises(SourceTimeout, match="sent nothing in time: check its power and network"):
        read_all(video.Reader(SECRET, NAME, timeout=5))


def test_a_file_has_no_time_that_could_be_up(monkeypatch, clock):
    def packets():
        yield Packet()
        clock.now += 3600
        raise av.error.InvalidDataError(1, "Invalid data found", "clip.mp4")

    opens(monkeypatch, Container(packets))
    with pytest.raises(SourceError, match="damaged or incomplete"):
        read_all(video.Reader("clip.mp4", "clip.mp4"))


@pytest.mark.parametrize("damaged", [0, 2])
def test_nothing_but_damaged_packets(monkeypatch, damaged):
    opens(monkeypatch, Container(lambda: iter([Packet(damaged=True)] * damaged)))
    with pytest.raises(SourceError, match="has no frame that can be decoded: record it again"):
        read_all(video.Reader("clip.mp4", "clip.mp4"))


@pytest.mark.filterwarnings("error")
def test_a_film_in_order_is_no_reason_to_warn(monkeypatch):
    opens(monkeypatch, Container(lambda: iter([Packet(), Packet()])))
    assert len(read_all(video.Reader("clip.mp4", "clip.mp4"))) == 2


def test_damaged_packets_are_counted(monkeypatch):
    packets = [Packet(damaged=True), Packet(), Packet(damaged=True)]
    opens(monkeypatch, Container(lambda: iter(packets)))
    with pytest.warns(UserWarning, match=r"clip\.mp4: 2 damaged packets were left out"):
        assert read_all(video.Reader("clip.mp4", "clip.mp4")) == ["frame"]


@pytest.mark.parametrize(
    ("duration", "size", "kind", "finite"),
    [
        (None, None, "rtsp", False),
        (40_000_000, None, "rtsp", True),  # a recording that a camera plays back
        (None, -1, "mpegts", False),
        (None, 0, "mpegts", False),
        (None, 5000, "mpegts", True),
        (None, 5000, "hls", False),  # the size of a playlist, which grows
        (40_000_000, 5000, "hls", True),
    ],
)
def test_what_has_an_end(monkeypatch, duration, size, kind, finite):
    container = Container()
    container.duration, container.size, container.format.name = duration, size, kind
    opens(monkeypatch, container)
    assert video.Reader(SECRET, NAME).finite is finite


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_sound_without_pictures_is_closed(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(SourceError) as caught:
        video.VideoFile(str(path))
    # The error is kept, and with it whatever its frames hold.
    assert caught.value.__traceback__ is not None
    held = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
    assert path.resolve() not in held
