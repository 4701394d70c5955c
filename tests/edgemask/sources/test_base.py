"""What every source does, whatever it reads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from live_fakes import until

from edgemask.errors import SourceError
from edgemask.sources.base import Frame, LiveSource, Pixels, Source


class Held(Source):
    """Counts how often it was given back."""

    released = 0

    def read(self, timeout: float = 5.0) -> Frame | None:
        return None

    def _release(self) -> None:
        self.released += 1


class Camera(LiveSource[bytes]):
    """Sends some frames, each when the one before was looked at; b"bad" is damaged."""

    def __init__(self, *frames: bytes) -> None:
        super().__init__("fake", "fake")
        self._left = list(frames)
        self._looked_at = threading.Semaphore(1)
        self.shut_down = 0

    def _fetch(self) -> tuple[bytes, int | None] | None:
        if not self._looked_at.acquire(timeout=20) or not self._left:
            return None
        return self._left.pop(0), None

    def _convert(self, raw: bytes) -> Pixels:
        self._looked_at.release()
        if raw == b"bad":
            raise SourceError("damaged")
        return np.zeros((2, 2, 3), np.uint8)

    def _interrupt(self) -> None:
        self._looked_at.release()

    def _shut_down(self) -> None:
        self.shut_down += 1


def test_it_is_given_back_once() -> None:
    with Held("held") as source:
        source.close()
        source.close()
        assert source.closed
    assert source.released == 1


def test_after_the_end_no_frame_is_given_that_waited() -> None:
    source = Camera(b"good")
    source.start()
    assert until(lambda: source._slot._full)
    source.close()
    assert source.read(0.1) is None


@pytest.mark.parametrize("started", [True, False])
def test_a_device_is_closed_once(started: bool) -> None:
    source = Camera(b"good")
    if started:
        source.start()
    source.close()
    source.close()
    assert source.shut_down == 1


def test_damaged_frames_count_as_dropped() -> None:
    with Camera(b"good", b"bad", b"bad", b"good") as source:
        source.start()
        assert [frame.index for frame in source] == [0, 3]
        assert source.dropped == 2


def test_a_damaged_frame_is_told_who_does_not_want_to_wait_for_another() -> None:
    with Camera(b"bad", b"good") as source:
        source.start()
        until(lambda: source._slot._full)
        with pytest.raises(SourceError, match="damaged"):
            source.read(timeout=0)
        assert source.dropped == 1
        frame = source.read()
        assert frame is not None
        assert frame.index == 1
