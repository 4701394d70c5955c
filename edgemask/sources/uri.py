"""Reading source URIs: their options, and what of them may be shown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from edgemask.errors import InputError

__all__ = [
    "Parsers",
    "fraction",
    "natural",
    "options_of",
    "redact",
    "size",
    "switch",
    "word",
]

Parsers = Mapping[str, Callable[[str], Any]]
"""The options of a kind of source: a name, and what turns its text into a value or ValueError."""

_SECRET = re.compile(r"pas|pwd?$|pwd|secret|token|auth|key|sig", re.IGNORECASE)
# Cameras have them in the query or in the path: /user=admin&password=x, /user=admin_password=x_
_PAIR = re.compile(r"([A-Za-z][A-Za-z0-9-]*)=(.*?)(?=[&;/?#]|_[A-Za-z]+=|$)")
_MAX_SIDE = 16384


def options_of(name: str, text: str, given: Mapping[str, Any], parsers: Parsers) -> dict[str, Any]:
    """Return the options of a source.

    Parameters
    ----------
    name : str
        The source, for messages.
    text : str
        ``size=640x480&fps=15``.
    given : mapping
        More options, from keyword arguments; they win over the text.
    parsers : mapping of str to callable

    Raises
    ------
    InputError
        An option is unknown, is there twice, or has a value that makes no sense; the message names
        the nearest known one.
    """
    name = name.rstrip(":")  # synthetic:
    pairs: dict[str, str] = {}
    for key, value in parse_qsl(text, keep_blank_values=True):
        if key in pairs:
            raise InputError(f"{name}: the option {key} is given twice: leave one out")
        pairs[key] = value
    pairs |= {key: _as_text(value) for key, value in given.items()}
    options = {}
    for key, value in pairs.items():
        if key not in parsers:
            raise InputError(f"{name} has no option {key!r}: {_suggest(key, list(parsers))}")
        try:
            options[key] = parsers[key](value)
        except ValueError as error:
            raise InputError(f"{name}: {key}={value}: {error}") from None
    return options


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return "x".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _suggest(key: str, known: list[str]) -> str:
    if not known:
        return "it takes none"
    near = difflib.get_close_matches(key, known, 1, 0.5)
    listed = f"it takes {', '.join(known)}"
    return f"did you mean {near[0]}? ({listed})" if near else listed


def size(text: str) -> tuple[int, int]:
    """Parse ``640x480`` as width, height; both even, as cameras need them."""
    found = re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", text, re.ASCII)
    if not found:
        raise ValueError("give width and height like 640x480")
    width, height = int(found[1]), int(found[2])
    if not all(16 <= side <= _MAX_SIDE and side % 2 == 0 for side in (width, height)):
        raise ValueError(f"give even numbers from 16 to {_MAX_SIDE}, like 640x480")
    return width, height


def natural(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from low to high."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError(f"give a whole number from {low} to {high}")
        return int(text)

    return parse


def fraction(low: float, high: float) -> Callable[[str], float]:
    """Return a parser of numbers from low to high."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1
        if not low <= value <= high:
            raise ValueError(f"give a number from {low:g} to {high:g}")
        return value

    return parse


def word(*words: str) -> Callable[[str], str]:
    """Return a parser of one of some words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"give {' or '.join(words)}")
        return text

    return parse


def switch(text: str) -> bool:
    """Parse 1 or 0 (also yes, no, true, false, on, off)."""
    known = {"1": True, "yes": True, "true": True, "on": True}
    known |= {"0": False, "no": False, "false": False, "off": False}
    if text.lower() not in known:
        raise ValueError("give 1 or 0")
    return known[text.lower()]


def redact(uri: str) -> str:
    """Return a URL as it may be shown: passwords, tokens and keys become ``***``."""
    scheme, colon, rest = uri.partition(":")
    if not colon:
        return uri
    slashes = rest[: len(rest) - len(rest.lstrip("/"))]
    user, at, place = "", "", rest.lstrip("/")
    host = re.split(r"[/?#]", place, maxsplit=1)[0]
    if "@" in host or ":" in host:
        # To the last @: people write / ? # and @ in a password as they are.
        user, at, place = place.rpartition("@")
    if at:
        account = re.split(r"[:/?#@]", user, maxsplit=1)[0]
        user = account if account == user else f"{account}:***"
    place = _PAIR.sub(_hidden, place.partition("#")[0])
    return f"{scheme}:{slashes}{user}{at}{place}"


def _hidden(pair: re.Match[str]) -> str:
    return f"{pair[1]}=***" if _SECRET.search(pair[1]) else pair[0]
