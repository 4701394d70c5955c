"""When it is silent."""

from __future__ import annotations

from itertools import pairwise

from edgemask.live.silence import Silence


def test_it_is_told_once_and_again_after_the_next_result() -> None:
    silence = Silence(5.0)
    assert not silence.begins(100.0)  # before anything was heard
    silence.heard(100.0)
    silence.heard(100.5)
    assert not silence.begins(107.0)  # 5 s and three intervals
    assert silence.begins(107.1)
    assert not silence.begins(200.0)
    silence.heard(300.0)
    assert not silence.begins(306.0)  # the long pause was no interval
    assert silence.begins(307.0)


def test_a_slow_pace_is_no_silence() -> None:
    silence = Silence(5.0)
    silence.heard(0.0)
    silence.heard(60.0)
    assert not silence.begins(240.0)
    assert silence.begins(246.0)


def test_a_pace_slower_than_the_patience_is_learnt() -> None:
    silence, told = Silence(5.0), []
    times = [0.0, 0.1, 0.2, *(10.2 + 10 * n for n in range(5))]  # ten a second, then one in ten
    for time, following in pairwise(times):
        silence.heard(time)
        told.append(any(silence.begins(time + step) for step in range(int(following - time))))
    assert told == [False, False, True, True, False, False, False]
