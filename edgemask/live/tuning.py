"""What can be changed while the engine runs, within which bounds, and what the governor leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgemask.errors import InputError
from edgemask.live.governor import GovernorState

__all__ = ["Limit", "checked", "effective", "limits_of", "period"]

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limit:
    """Bounds of one setting.

    Attributes
    ----------
    low, high : float
        Both included.
    step : float
        1 or more: whole numbers only. The network rounds its input to multiples of this.
    optional : bool
        Whether None, no limit, is a value too.
    """

    low: float
    high: float
    step: float
    optional: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the bounds as plain Python objects."""
        return asdict(self)


def limits_of(segmenter: Any) -> dict[str, Limit]:
    """Return the bounds of everything that can be changed with this segmenter.

    The input's short side goes from half to one and a half times what the model was trained for:
    beyond that accuracy falls without a gain.
    """
    limits = {"max_fps": Limit(0.01, 1000, 0.01, optional=True)}
    if hasattr(segmenter, "score_threshold"):
        limits["score_threshold"] = Limit(0, 1, 0.01)
    if hasattr(segmenter, "max_detections"):
        limits["max_detections"] = Limit(1, max(100, segmenter.max_detections), 1)
    if hasattr(segmenter, "short_side") and hasattr(getattr(segmenter, "pack", None), "input"):
        stride, own = segmenter.pack.input["stride"], segmenter.pack.input["short_side"]
        sides = [own, segmenter.short_side or own]
        low = min(max(stride, math.ceil(own / 2 / stride) * stride), *sides)
        limits["short_side"] = Limit(low, max(own * 3 // 2 // stride * stride, *sides), stride)
    return limits


def checked(values: Mapping[str, Any], limits: Mapping[str, Limit]) -> Values:
    """Return the values if each is a known setting, of the right type and within its bounds.

    Raises
    ------
    InputError
    """
    result: Values = {}
    for name, value in values.items():
        limit = limits.get(name)
        if limit is None:
            raise InputError(f"{name!r} cannot be set; give {', '.join(sorted(limits))}")
        if value is None and limit.optional:
            result[name] = None
            continue
        whole = limit.step >= 1
        right = isinstance(value, int) or (isinstance(value, float) and not whole)
        if isinstance(value, bool) or not right or not limit.low <= value <= limit.high:
            kind = "whole number" if whole else "number"
            none = ", or null for no limit" if limit.optional else ""
            shown = repr(value)[:40]
            raise InputError(
                f"{name} is {shown}; give a {kind} from {limit.low:g} to {limit.high:g}{none}"
            )
        result[name] = value
    return result


def effective(
    settings: Mapping[str, Any], state: GovernorState, limits: Mapping[str, Limit]
) -> Values:
    """Return the segmenter's settings after the governor has taken its share.

    Returns
    -------
    dict
        Those of `settings` that the segmenter has, all but ``max_fps``.
    """
    share = state.share
    values = {name: value for name, value in settings.items() if name != "max_fps"}
    if "max_detections" in values:
        values["max_detections"] = max(1, round(values["max_detections"] * share.detections))
    if "short_side" in values and share.short_side < 1:
        limit = limits["short_side"]
        side = values["short_side"] * share.short_side // limit.step * limit.step
        values["short_side"] = int(min(values["short_side"], max(limit.low, side)))
    return values


def period(busy: float, max_fps: float | None, rate: float) -> float:
    """Return the least seconds from the start of one frame to the start of the next.

    Parameters
    ----------
    busy : float
        Seconds that the frame took.
    max_fps : float or None
    rate : float
        The governor's share, in (0, 1]. It also bounds the part of the time that is spent working,
        or it would do nothing where the CPU and not `max_fps` sets the pace.
    """
    return max(busy, 0.0 if max_fps is None else 1 / max_fps) / rate
