"""What long-running programs do: signals, the watchdog, saying what is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from live_fakes import FakeBoard, FakeSource, Opener, SlowSegmenter, until

from edgemask.errors import CameraMissing, InputError, SourceError
from edgemask.live.engine import Engine
from edgemask.live.notify import Notifier
from edgemask.live.service import longest_pause, stop_signals, supervise


class Recorder(Notifier):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__({"WATCHDOG_USEC": "1000000"})
        self.sent: list[str] = []

    def _send(self, message: str) -> None:
        self.sent.append(message)


class Looks(threading.Event):
    """Lets a supervisor look until a test has seen enough, and for a minute at most."""

    def __init__(self, enough: Callable[[], bool]) -> None:
        super().__init__()
        self._enough = enough
        self._until = time.monotonic() + 60

    def wait(self, timeout: float | None = None) -> bool:
        assert time.monotonic() < self._until, "looked in vain"
        time.sleep(0.005)
        return self._enough()


def watch(
    opener: Opener,
    enough: Callable[[Recorder], bool],
    uri: str = "camera:0",
    max_fps: float | None = None,
) -> tuple[Recorder, list[str], Any]:
    """Supervise an engine; return what was sent and reported, and the segmenter."""
    recorder, reported = Recorder(), list[str]()
    segmenter = SlowSegmenter()
    options: dict[str, Any] = {"backoff": (0.02, 0.04), "read_timeout": 0.02, "max_fps": max_fps}
    with Engine(opener, segmenter, board=FakeBoard(61.0), **options) as engine:
        supervise(engine, uri, recorder, Looks(lambda: enough(recorder)), reported.append)
    return recorder, reported, segmenter


def fed(recorder: Recorder) -> int:
    return recorder.sent.count("WATCHDOG=1")


def test_frames_feed_the_watchdog() -> None:
    recorder, reported, segmenter = watch(Opener(FakeSource), lambda r: fed(r) > 3)
    assert fed(recorder) <= len(segmenter.seen) + 1
    assert reported == []


def test_a_slow_pace_is_not_taken_for_a_hang() -> None:
    _, _, segmenter = watch(Opener(FakeSource), lambda r: fed(r) > 5, max_fps=0.1)
    assert len(segmenter.seen) == 1


def test_a_silent_camera_does_not() -> None:
    opener = Opener(lambda: FakeSource([60.0]))
    recorder, reported, _ = watch(opener, lambda r: len(opener.calls) > 4)
    assert fed(recorder) == 1  # that of the first look
    assert reported == ["fake gave no frame (trying again)"]


def test_a_camera_that_is_not_there_is_reported_once_and_not_mended_by_restarts() -> None:
    opener = Opener(CameraMissing("no camera 0: plug it in"))
    recorder, reported, _ = watch(opener, lambda r: fed(r) > 3)
    assert reported == ["no camera 0: plug it in (trying again)"]
    assert any(line.startswith("STATUS=") for line in recorder.sent)


def test_the_scheme_of_a_camera_in_capitals() -> None:
    opener = Opener(SourceError("cam sent nothing in time"), FakeSource)
    _, reported, _ = watch(opener, lambda r: fed(r) > 3, "RTSP://cam/live")
    assert reported == ["cam sent nothing in time (trying again)"]


def test_files_that_have_ended_feed_it_too() -> None:
    opener = Opener(lambda: FakeSource(live=False, frames=2))
    _, reported, segmenter = watch(opener, lambda r: fed(r) > 10, "film.mp4")
    assert len(segmenter.seen) == 2
    assert reported == []


def test_a_file_that_cannot_be_read_is_left_out() -> None:
    """However long the next one takes."""
    unreadable = SourceError("a.jpg is not an image: replace it")
    opener = Opener(lambda: FakeSource([unreadable, 0.3], live=False, frames=2))
    recorder = Recorder()
    segmenter = SlowSegmenter()
    with Engine(opener, segmenter, board=FakeBoard(61.0), read_timeout=5.0) as engine:
        supervise(engine, "folder", recorder, Looks(lambda: fed(recorder) > 10), lambda line: None)
    assert len(segmenter.seen) == 2
    assert engine.status()["errors"] == 1


def test_a_file_that_is_not_there_ends_the_program() -> None:
    with pytest.raises(SourceError, match="does not exist"):
        watch(Opener(SourceError("film.mp4 does not exist: check it")), lambda r: False, "film.mp4")


def test_a_source_that_makes_no_sense_ends_the_program() -> None:
    with pytest.raises(SourceError, match="give its number"):
        watch(Opener(InputError("camera:x is not a camera: give its number")), lambda r: False)


def test_pauses_are_shorter_than_the_watchdog() -> None:
    assert longest_pause(None) == 30
    assert longest_pause(30) == 10
    assert longest_pause(600) == 30
    assert longest_pause(0.1) == 0.5


def test_signals() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as stopped:
        assert not stopped.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        until(stopped.is_set)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_in_the_middle_of_waiting() -> None:
    # What wait() does: for a moment it holds the lock of the event, and a signal may come then.
    program = """if True:
        import os, signal
        from edgemask.live.service import stop_signals
        with stop_signals() as stopped:
            with stopped._cond:
                os.kill(os.getpid(), signal.SIGTERM)
            print(stopped.wait(10))
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "True\n"
