"""Pauses between attempts, and frames that are numbered on."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from live_fakes import FakeBoard, Opener, SlowSegmenter

from edgemask.errors import CameraMissing, InputError, RuntimeUnavailable, SourceError
from edgemask.live.engine import Engine
from edgemask.live.reopen import Backoff, reopening
from edgemask.sources.base import Frame, Source
from edgemask.sources.synthetic import Synthetic

GONE = CameraMissing("camera:0 has gone")


class Script(Source):
    """Gives frames of these indices, then raises or ends."""

    live = True

    def __init__(self, indices: list[int], error: Exception | None = None, **more: Any) -> None:
        super().__init__("cam")
        self._indices, self._error = list(indices), error
        self.length, self.finite = more.get("length"), more.get("finite", False)

    def read(self, timeout: float = 5.0) -> Frame | None:
        if self._indices:
            n = self._indices.pop(0)
            return Frame(np.zeros((2, 2, 3), np.uint8), n, None, 0, f"cam-{n:06d}")
        if self._error is not None:
            raise self._error
        return None

    def _release(self) -> None:
        pass


class Play:
    """Opens one after the other, and keeps what was said and waited."""

    def __init__(self, *steps: Source | Exception) -> None:
        self.steps, self.opened = list(steps), []
        self.lines: list[str] = []
        self.waits: list[float] = []

    def __call__(self) -> Source:
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        self.opened.append(step)
        return step

    def frames(self, attempts: int | None = None) -> Any:
        backoff = Backoff(0.5, 4.0, attempts)
        return reopening(self(), self, backoff, self.lines.append, self.waits.append)


def test_frames_are_numbered_on() -> None:
    play = Play(Script([0, 1, 4], GONE), Script([2, 3]), GONE, Script([0, 7], finite=True))
    found = list(play.frames())
    assert [frame.index for frame in found] == [0, 1, 4, 7, 8, 9, 16]
    assert [frame.name for frame in found] == [f"cam-{frame.index:06d}" for frame in found]
    assert all(source.closed for source in play.opened)
    assert play.lines == [
        "camera:0 has gone (trying again)", "cam ended: check what sends it (trying again)"
    ]  # fmt: skip
    assert play.waits == [0.5, 0.5, 1.0]  # anew after a frame, longer after none


def test_attempts_in_a_row_are_counted() -> None:
    play = Play(Script([0], GONE), GONE, GONE, Script([0], GONE), GONE, GONE, SourceError("last"))
    frames, found = play.frames(attempts=3), []
    with pytest.raises(SourceError, match="last"):
        found.extend(frames)
    assert play.steps == []  # three after the first frame and three after the second
    assert len(play.waits) == 6
    assert len(play.lines) == 2


@pytest.mark.parametrize("error", [GONE, None])
def test_what_never_gave_a_frame_is_not_opened_again(error: Exception | None) -> None:
    play = Play(Script([], error), Script([0]))
    with pytest.raises(SourceError):
        list(play.frames())
    assert (len(play.opened), play.lines, play.waits) == (1, [], [])


@pytest.mark.parametrize("more", [{"length": 2}, {"finite": True}])
def test_what_has_an_end_is_not_opened_again(more: dict[str, Any]) -> None:
    play = Play(Script([0, 1], **more))
    assert len(list(play.frames())) == 2
    assert play.lines == []


@pytest.mark.parametrize("error", [InputError("no such option"), RuntimeUnavailable("no PyAV")])
def test_what_will_not_change_is_given_up(error: Exception) -> None:
    play = Play(Script([0], GONE), error, Script([0]))
    with pytest.raises(type(error)):
        list(play.frames())
    assert len(play.opened) == 1


def test_leaving_closes_it() -> None:
    play = Play(Script([0, 1]))
    frames = play.frames()
    next(frames)
    frames.close()
    assert play.opened[0].closed


@pytest.mark.parametrize(
    ("attempts", "pauses"),
    [(0, [None]), (2, [0.5, 1.0, None, None]), (None, [0.5, 1.0, 2.0, 4.0, 4.0])],
)
def test_pauses(attempts: int | None, pauses: list[float | None]) -> None:
    backoff = Backoff(0.5, 4.0, attempts)
    assert [backoff.after(GONE, False) for _ in pauses] == pauses


def test_no_number_of_attempts_overflows() -> None:
    backoff = Backoff(0.5, 30.0)
    assert {backoff.after(GONE, False) for _ in range(3000)} == {0.5, 1, 2, 4, 8, 16, 30}


def test_a_live_scene_of_so_many_frames_is_not_opened_again_by_the_engine() -> None:
    opener = Opener(lambda: Synthetic(size=(32, 32), fps=200, frames=20, live=True))
    with Engine(opener, SlowSegmenter(), board=FakeBoard()) as engine:
        assert engine.wait(20)
        assert engine.status()["source"]["state"] == "ended"
        assert engine.status()["source"]["failures"] == 0


def test_nor_when_its_last_frames_were_dropped() -> None:
    scene = Synthetic(size=(32, 32), fps=200, frames=20, live=True)
    frames = reopening(scene, lambda: pytest.fail("opened again"), Backoff(0, 0), print)
    first = next(frames)
    time.sleep(0.3)  # all the others are over by then
    assert [first.index, *(frame.index for frame in frames)] == [0]
