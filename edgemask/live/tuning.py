"""What can be changed while the engine runs, within which bounds, and what the governor leaves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgemask.errors import InputError
from edgemask.live.governor import GovernorState

__all__ = ["Choice", "Limit", "Limits", "Tuning", "checked", "effective", "limits_of", "period"]

Values = dict[str, Any]

_NOT_OF_THE_SEGMENTER = ("max_fps", "model")


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

    def check(self, name: str, value: Any) -> Any:
        """Return the value; InputError, with `name`, if it is of another type or out of bounds."""
        if value is None and self.optional:
            return None
        whole = self.step >= 1
        right = isinstance(value, int) or (isinstance(value, float) and not whole)
        if isinstance(value, bool) or not right or not self.low <= value <= self.high:
            kind = "whole number" if whole else "number"
            none = ", or null for no limit" if self.optional else ""
            raise InputError(
                f"{name} is {_shown(value)}; give a {kind} from {self.low:g} to {self.high:g}{none}"
            )
        return value

    def nearest(self, value: Any) -> Any:
        """Return the allowed value that is nearest to one of the right type."""
        if value is None:
            return None
        return min(max(value, type(value)(self.low)), type(value)(self.high))


@dataclass(frozen=True, slots=True)
class Choice:
    """The values of a setting that is one of some names.

    Attributes
    ----------
    choices : tuple of str
    """

    choices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the names as plain Python objects."""
        return {"choices": list(self.choices)}

    def check(self, name: str, value: Any) -> Any:
        """Return the value; InputError, with `name`, if it is none of the names."""
        if value not in self.choices:
            known = ", ".join(self.choices)
            raise InputError(f"{name} is {_shown(value)}; give one of {known}")
        return value


Limits = Mapping[str, Limit | Choice]


def _shown(value: Any) -> str:
    return repr(value)[:40]


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
    own = _own(segmenter)
    if "max_proposals" in own:
        limits["max_proposals"] = Limit(1, own["max_proposals"], 1)
    if "short_side" in own:
        stride, trained = segmenter.pack.input["stride"], own["short_side"]
        sides = [trained, segmenter.short_side or trained]
        low = min(max(stride, math.ceil(trained / 2 / stride) * stride), *sides)
        high = max(trained * 3 // 2 // stride * stride, *sides)
        limits["short_side"] = Limit(low, high, stride)
    return limits


def _own(segmenter: Any) -> dict[str, int]:
    """Return what the pack itself says about settings that depend on it."""
    pack = getattr(segmenter, "pack", None)
    own: dict[str, int] = {}
    if hasattr(segmenter, "max_proposals") and hasattr(pack, "rpn"):
        own["max_proposals"] = segmenter.pack.rpn["post_nms"]
    if hasattr(segmenter, "short_side") and hasattr(pack, "input"):
        own["short_side"] = segmenter.pack.input["short_side"]
    return own


def checked(values: Mapping[str, Any], limits: Limits) -> Values:
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
        result[name] = limit.check(name, value)
    return result


@dataclass(frozen=True, slots=True)
class Tuning:
    """The settings of one segmenter and their bounds. A change gives another object.

    Attributes
    ----------
    limits : mapping of str to Limit or Choice
    settings : mapping of str to object
        A value within its bounds for each of `limits`.
    own : mapping of str to int
        What the model itself says about some of them.
    """

    limits: Limits
    settings: Mapping[str, Any]
    own: Mapping[str, int]

    @classmethod
    def of(
        cls,
        segmenter: Any,
        max_fps: float | None = None,
        models: Iterable[str] = (),
        model: str | None = None,
    ) -> Tuning:
        """Return the settings that a segmenter comes with.

        Parameters
        ----------
        segmenter : callable
        max_fps : float or None
        models : iterable of str
            Names of the models that can be chosen; empty if none can.
        model : str, optional
            The one that this is.

        Raises
        ------
        InputError
            One of them is out of bounds.
        """
        limits: dict[str, Limit | Choice] = {**limits_of(segmenter)}
        own = _own(segmenter)
        settings: Values = {"max_fps": max_fps}
        for name in limits.keys() - {"max_fps"}:
            given = getattr(segmenter, name)
            settings[name] = own[name] if given is None else given
        if "max_proposals" in own:
            settings["max_proposals"] = min(settings["max_proposals"], own["max_proposals"])
        if names := tuple(models):
            limits["model"] = Choice(names)
            settings["model"] = model
        return cls(limits, checked(settings, limits), own)

    def changed(self, values: Mapping[str, Any]) -> Tuning:
        """Return the settings with some of them changed.

        Raises
        ------
        InputError
            One of the values is unknown or out of bounds.
        """
        return replace(self, settings={**self.settings, **checked(values, self.limits)})

    def moved_to(self, segmenter: Any, model: str) -> Tuning:
        """Return the settings for another model.

        What the old model said itself becomes what the new one says; what was set by hand stays,
        as near as the new bounds allow.
        """
        choice = self.limits.get("model")
        names = choice.choices if isinstance(choice, Choice) else ()
        fresh = Tuning.of(segmenter, None, names, model)
        settings = dict(fresh.settings)
        for name, limit in fresh.limits.items():
            if not isinstance(limit, Limit) or name not in self.settings:
                continue
            value = self.settings[name]
            if name in self.own and name in fresh.own and value == self.own[name]:
                settings[name] = fresh.own[name]
            else:
                settings[name] = limit.nearest(value)
        return replace(fresh, settings=settings)


def effective(settings: Mapping[str, Any], state: GovernorState, limits: Limits) -> Values:
    """Return the segmenter's settings after the governor has taken its share.

    Returns
    -------
    dict
        Those of `settings` that the segmenter has: all but ``max_fps`` and ``model``.
    """
    share = state.share
    values = {name: v for name, v in settings.items() if name not in _NOT_OF_THE_SEGMENTER}
    shares = {"max_proposals": share.proposals, "max_detections": share.detections}
    for name in values.keys() & shares.keys():
        values[name] = max(1, round(values[name] * shares[name]))
    limit = limits.get("short_side")
    if isinstance(limit, Limit) and share.short_side < 1:
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
