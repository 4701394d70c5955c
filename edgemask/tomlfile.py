"""Reading a TOML file into dataclasses, with every mistake named by its key.

The dataclasses say what is allowed: the type of each key is its annotation, and
``field(metadata={"check": function})`` refuses or converts a value of the right type. A misspelt
key that is silently ignored would leave a camera running without the setting its owner believes in,
so unknown keys are errors.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgemask.errors import InputError, SourceError

__all__ = ["expanded", "fill", "key", "one_of", "read_toml", "within"]

T = TypeVar("T")
Check = Callable[[Any], Any]

_FAR = 2**63  # what has hundreds of digits is no float, and out of any range
_NAMES = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    SourceError
        It cannot be read.
    InputError
        It is not TOML; the message has the line.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read ({error.strerror}): give the path to a TOML file"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: give a TOML file") from error
    except (ValueError, RecursionError) as error:  # of too many digits or brackets, too
        raise InputError(f"{path} is not TOML: {error}") from error


def key(default: Any, check: Check) -> Any:
    """Declare a field with a default and a check.

    Parameters
    ----------
    default : object
        Immutable.
    check : callable
        Gets a value of the field's type and returns it, or what it means; raises ValueError with
        what to give instead.
    """
    return dataclasses.field(default=default, metadata={"check": check})


def within(low: float, high: float, unit: str = "") -> Check:
    """Return a check that a number lies between two others, both allowed."""

    def check(value: float) -> float:
        if not low <= value <= high:  # also refuses nan
            raise ValueError(f"a number from {low:g} to {high:g}{unit and ' ' + unit}")
        return value

    return check


def one_of(*choices: str) -> Check:
    """Return a check that a string is one of some."""

    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return check


def fill(cls: type[T], values: Mapping[str, Any], folder: Path, where: str = "") -> T:
    """Build a dataclass from the values of a TOML table.

    Parameters
    ----------
    cls : dataclass
        Annotations may be str, bool, int, float, Path, another dataclass, ``tuple[X, ...]`` of
        these or ``tuple[X, X]``, and ``X | None``.
    values : mapping
    folder : Path
        What relative paths are relative to.
    where : str
        Path of this table, for messages.

    Raises
    ------
    InputError
        An unknown key, a missing one without default, a wrong type, or a value out of range.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    made: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{where}.{name}" if where else name
        if name not in fields:
            raise InputError(f"{path} is not a setting; {_nearest(name, list(fields))}")
        result = _convert(hints[name], value, folder, path)
        check = fields[name].metadata.get("check")
        if check is not None:
            try:
                result = check(result)
            except ValueError as error:
                raise InputError(f"{path} is {_shown(value)}; give {error}") from error
        made[name] = result
    for name, field in fields.items():
        needed = field.default is field.default_factory is dataclasses.MISSING
        if needed and name not in made:
            raise InputError(
                f"{where}.{name} is missing; every [[{where.partition('[')[0]}]] needs it"
            )
    return cls(**made)


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _convert(kind: Any, value: Any, folder: Path, path: str) -> Any:
    if isinstance(kind, types.UnionType):  # X | None: TOML has no null, so the key is left out
        kind = next(k for k in typing.get_args(kind) if k is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        return _convert_list(kind, value, folder, path)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise InputError(f"{path} is {_shown(value)}; write it as a table, [{path}]")
        return fill(typing.cast(type[Any], kind), value, folder, path)
    if kind is Path:
        return expanded(_convert(str, value, folder, path), path, folder)
    if kind is float and type(value) is int:
        value = float(min(max(value, -_FAR), _FAR))
    if type(value) is not kind:
        raise InputError(f"{path} is {_shown(value)}; give {_NAMES[kind]}")
    if kind is str and "\0" in value:  # no name of a file, host or program has one
        raise InputError(f"{path} is {_shown(value)}; leave out the NUL character")
    return value


def _convert_list(kind: Any, value: Any, folder: Path, path: str) -> tuple[Any, ...]:
    inner = typing.get_args(kind)
    if not isinstance(value, list):
        raise InputError(f"{path} is {_shown(value)}; give a list, [ … ]")
    if inner[-1] is not Ellipsis and len(value) != len(inner):
        raise InputError(f"{path} has {len(value)} entries; give {len(inner)}")
    return tuple(_convert(inner[0], v, folder, f"{path}[{n}]") for n, v in enumerate(value))


def expanded(text: str, path: str, folder: Path) -> Path:
    """Return a path of the file, from its folder on; ~, $NAME and ${NAME} are replaced.

    systemd hands over its folders in variables.

    Raises
    ------
    InputError
        A variable is not set, or the text is empty; the message names the key, `path`.
    """
    result = os.path.expanduser(os.path.expandvars(text))
    unset = re.search(r"\$\{?\w+", result)
    if unset:
        raise InputError(f"{path} is {_shown(text)}, but {unset[0].strip('${')} is not set")
    if not result:
        raise InputError(f"{path} is empty; give a path, or leave the key out")
    return folder / result


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 60 else f"{text[:57]}…"
