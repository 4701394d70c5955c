"""What the governor does at which temperature, without waiting for anything to get warm."""

from __future__ import annotations

from itertools import pairwise

from edgemask.live.governor import LADDER, GovernorState, advance

LIMIT = 75.0


def play(
    temperatures: list[float | None], step: float = 2.0, state: GovernorState | None = None
) -> list[int]:
    """Return the level after each of the temperatures, read every `step` seconds."""
    state = GovernorState() if state is None else state
    levels = []
    for n, celsius in enumerate(temperatures):
        state = advance(state, n * step, celsius, LIMIT)
        levels.append(state.level)
    return levels


def test_cool_boards_are_left_alone() -> None:
    assert set(play([50.0] * 100)) == {0}
    assert set(play([74.9] * 100)) == {0}


def test_the_rate_goes_first_then_proposals_then_instances_then_the_input() -> None:
    order = ["rate", "proposals", "detections", "short_side"]
    taken = [[name for name in order if getattr(share, name) < 1] for share in LADDER]
    assert taken[0] == []
    assert taken[1] == taken[2] == ["rate"]
    assert taken[-1] == order
    first = [next(n for n, names in enumerate(taken) if name in names) for name in order]
    assert first == sorted(set(first))
    for name in order:
        shares = [getattr(share, name) for share in LADDER]
        assert shares == sorted(shares, reverse=True)
        assert shares[-1] > 0
    assert len(set(LADDER)) == len(LADDER)  # no step does nothing


def test_it_steps_at_once_and_then_waits_to_see_what_that_did() -> None:
    levels = play([76.0] * 12)
    assert levels[0] == 1
    assert levels[4] == 1  # 8 s later
    assert levels[5] == 2  # 10 s later
    assert levels[10] == 3


def test_far_above_the_limit_it_does_not_wait_that_long() -> None:
    assert play([80.0] * 4) == [1, 2, 3, 4]
    assert play([90.0] * 50)[-1] == len(LADDER) - 1


def test_the_limits_themselves_count() -> None:
    assert advance(GovernorState(), 0.0, LIMIT, LIMIT).level == 1
    state = GovernorState(1, "hot", 0.0)
    assert advance(state, 2.0, LIMIT + 4, LIMIT).level == 2  # urgent
    assert advance(state, 2.0, LIMIT + 3.9, LIMIT).level == 1


def test_it_gives_back_late_and_one_level_at_a_time() -> None:
    levels = play([80.0] * 3 + [70.0] * 60)
    assert levels[2] == 3
    falls = [n for n in range(1, len(levels)) if levels[n] < levels[n - 1]]
    assert [levels[n] for n in falls] == [2, 1, 0]
    assert falls[0] >= 2 + 15  # 30 s of two-second readings
    assert min(b - a for a, b in pairwise(falls)) >= 15


def test_just_below_the_limit_it_holds() -> None:
    assert set(play([76.0] + [73.0] * 200)) == {1}


def test_a_warm_moment_starts_the_wait_anew() -> None:
    levels = play([76.0] + [70.0] * 14 + [73.0] + [70.0] * 14)
    assert set(levels) == {1}


def test_heat_between_ends_the_time_of_being_cool() -> None:
    state = GovernorState(2, "hot", 0.0)
    state = advance(state, 100.0, 70.0, LIMIT)
    state = advance(state, 129.0, 70.0, LIMIT)
    state = GovernorState(2, "hot", 125.0, state.cool_since)  # not long enough ago for another
    state = advance(state, 126.0, 76.0, LIMIT)
    assert state.level == 2
    assert state.cool_since is None


def test_levels_are_given_back_every_thirty_seconds() -> None:
    levels = play([60.0] * 13, step=10.0, state=GovernorState(3, "hot", 0.0))
    assert levels == [3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0, 0]


def test_it_does_not_swing_about_the_limit() -> None:
    levels = play([76.0, 74.0] * 100)
    assert all(b >= a for a, b in pairwise(levels))


def test_without_a_reading_the_level_stays() -> None:
    assert set(play([76.0] + [None] * 200)) == {1}
    assert set(play([None] * 10)) == {0}


def test_throttling_by_the_firmware_counts_as_the_limit() -> None:
    state = advance(GovernorState(), 0, 60.0, LIMIT, firmware_hot=True)
    assert (state.level, state.reason) == (1, "firmware throttling")
    assert advance(GovernorState(), 0, None, LIMIT, firmware_hot=True).level == 1


def test_it_says_why_and_stops_saying_so() -> None:
    state = advance(GovernorState(), 0, 76.4, LIMIT)
    assert state.reason == "76 °C, limit 75 °C"
    for n in range(1, 30):
        state = advance(state, n * 2, 60.0, LIMIT)
    assert (state.level, state.reason) == (0, "")
