"""The engine on a board that becomes hot, or that does not tell."""

from __future__ import annotations

import errno
import os

from live_fakes import FakeBoard, FakeSource, Opener, SlowSegmenter, until

from edgemask.live.board import Board
from edgemask.live.engine import Engine


def test_the_governor_slows_a_hot_board_and_says_so() -> None:
    board = FakeBoard(60.0)
    segmenter = SlowSegmenter(seconds=0.01)
    opener = Opener(lambda: FakeSource(every=0.001))
    with Engine(opener, segmenter, board=board, board_seconds=0.01, max_temp=70.0) as engine:
        until(lambda: engine.status()["frames"] > 3)
        assert engine.status()["governor"]["level"] == 0
        board.temperature_c = 71.0
        governor = until(
            lambda: engine.status()["governor"]["level"] and engine.status()["governor"]
        )
        assert governor["reason"] == "71 °C, limit 70 °C"
        assert governor["rate"] == 0.75
        assert engine.status()["temperature_c"] == 71.0


def test_without_a_limit_nothing_is_taken_away() -> None:
    board = FakeBoard(120.0, bits=0b1100)
    with Engine(Opener(FakeSource), SlowSegmenter(), board=board, board_seconds=0.005) as engine:
        until(lambda: board.reads > 5)
        assert engine.status()["governor"]["level"] == 0
        assert engine.status()["throttled"]["now"] == ["throttled", "soft temperature limit"]


def test_a_board_that_cannot_be_read_for_a_while() -> None:
    board, broken = FakeBoard(50.0), [False]

    def read() -> Board:
        if broken[0]:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return board()

    with Engine(Opener(FakeSource), SlowSegmenter(), board=read, board_seconds=0.005) as engine:
        until(lambda: engine.status()["temperature_c"] == 50.0)
        broken[0] = True
        until(lambda: engine.status()["temperature_c"] is None)
        broken[0], board.temperature_c = False, 71.0
        until(lambda: engine.status()["temperature_c"] == 71.0)
