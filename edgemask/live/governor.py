"""Slowing down before the firmware has to: how much work is allowed at which temperature.

A board that reaches its limit lowers its clock and everything on it stutters. The governor takes
work away earlier and in the order in which it hurts least: first the frame rate, then the number
of regions that are looked at and of instances, last the size of the network's input. It gives work
back one step at a time, and later than it took it, so that it does not swing.

Nothing here reads a clock or a sensor: :func:`advance` is a function of what it is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["LADDER", "GovernorState", "advance"]


@dataclass(frozen=True, slots=True)
class Share:
    """What part of the full work is allowed, each in (0, 1]."""

    rate: float = 1.0
    proposals: float = 1.0
    detections: float = 1.0
    short_side: float = 1.0


LADDER = (
    Share(),
    Share(0.75),
    Share(0.5),
    Share(0.35),
    Share(0.35, 0.6),
    Share(0.35, 0.6, 0.5),
    Share(0.35, 0.4, 0.25),
    Share(0.35, 0.4, 0.25, 0.8),
    Share(0.25, 0.4, 0.25, 0.65),
)
"""The levels, from nothing held back to the least work."""

HYSTERESIS_C = 4.0  # a level is given back this far below the limit
URGENT_C = 4.0  # this far above the limit, levels are taken faster
STEP_SECONDS = 10.0  # a heat sink needs that long to show what the last level did
URGENT_SECONDS = 2.0
RECOVER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class GovernorState:
    """Where the governor stands.

    Attributes
    ----------
    level : int
        Index into :data:`LADDER`; 0 holds nothing back.
    reason : str
        Why, in words for a person; empty at level 0.
    since : float
        Seconds, on the caller's clock, of the last change of level.
    cool_since : float or None
        Since when it has been cool enough to give a level back.
    """

    level: int = 0
    reason: str = ""
    since: float = float("-inf")
    cool_since: float | None = None

    @property
    def share(self) -> Share:
        """What is allowed at this level."""
        return LADDER[self.level]


def advance(
    state: GovernorState,
    now: float,
    temperature_c: float | None,
    limit_c: float,
    firmware_hot: bool = False,
) -> GovernorState:
    """Return the state after one reading.

    Parameters
    ----------
    state : GovernorState
    now : float
        Seconds on any clock that never goes back.
    temperature_c : float or None
        None keeps the level: without a reading nothing is known to have improved.
    limit_c : float
        Where work is taken away.
    firmware_hot : bool
        Whether the firmware already slows the CPU because of heat, which counts as the limit.

    Returns
    -------
    GovernorState
    """
    above = temperature_c is not None and temperature_c >= limit_c
    if above or firmware_hot:
        urgent = temperature_c is not None and temperature_c >= limit_c + URGENT_C
        wait = URGENT_SECONDS if urgent else STEP_SECONDS
        if now - state.since < wait or state.level == len(LADDER) - 1:
            return replace(state, cool_since=None)
        why = f"{temperature_c:.0f} °C, limit {limit_c:.0f} °C" if above else "firmware throttling"
        return GovernorState(state.level + 1, why, now)
    if state.level == 0 or temperature_c is None or temperature_c > limit_c - HYSTERESIS_C:
        return replace(state, cool_since=None)
    cool_since = now if state.cool_since is None else state.cool_since
    if now - max(cool_since, state.since) < RECOVER_SECONDS:
        return replace(state, cool_since=cool_since)
    level = state.level - 1
    return GovernorState(level, state.reason if level else "", now, now)
