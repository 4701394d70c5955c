"""Where frames come from: cameras, streams, videos, images, standard input, drawn scenes.

>>> from edgemask.sources import open_source
>>> with open_source("camera:0?size=640x480&fps=15") as source:  # doctest: +SKIP
...     for frame in source:
...         print(frame.index, frame.rgb.shape)
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgemask.errors import InputError, SourceError
from edgemask.images import expand_source
from edgemask.sources.base import Frame, Source
from edgemask.sources.latest import LatestSlot
from edgemask.sources.uri import (
    Parsers,
    fraction,
    natural,
    options_of,
    redact,
    size,
    switch,
    word,
)

__all__ = [
    "VIDEO_SUFFIXES",
    "Frame",
    "LatestSlot",
    "Source",
    "SourceError",
    "expand",
    "open_source",
    "shown",
]

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "h264", "h265", "hevc", "m2ts", "m4v", "mjpeg", "mjpg", "mkv"),
        *("mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv", "y4m"),
    )
)
"""Names that count as videos."""

_FORMS = (
    "camera:0, /dev/video0, rtsp://…, http://…, a video, image or folder, a glob pattern, "
    "synthetic:, or - for stdin"
)
_SCHEMES = ("camera", "v4l2", "rtsp", "rtsps", "http", "https", "synthetic")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.]+):(.*)", re.DOTALL)
_NONE: Parsers = {}


def expand(uri: str) -> tuple[list[str], list[str]]:
    """Return the image files that a source stands for, and the URIs of everything else.

    A folder stands for its images, a pattern for whatever it matches. All else is one URI.

    Raises
    ------
    SourceError
        Nothing is there.
    InputError
        It is no source at all.
    """
    if _form(uri) != "path":
        return [], [uri]
    paths = expand_source(uri)
    return [p for p in paths if not _is_video(p)], [p for p in paths if _is_video(p)]


def shown(uri: str) -> str:
    """Return a URI as it may be printed: passwords are left out."""
    return redact(uri) if _is_url(uri) else uri


def open_source(uri: str | os.PathLike[str], **options: Any) -> Source:
    """Open what frames are to come from.

    Parameters
    ----------
    uri : str or path
        ``camera:0?size=640x480&fps=15``, ``/dev/video0?size=1280x720`` (also ``v4l2:/dev/video0``),
        ``rtsp://host/path#transport=udp``, ``http://host/stream.mjpg``, ``video.mp4``,
        ``photo.jpg``, a folder, a glob pattern, ``-`` (standard input) or
        ``synthetic:?people=3&frames=100``. docs/sources.md lists the options of each.
    **options
        The same options; they win over those in the URI.

    Returns
    -------
    Source
        A context manager.

    Raises
    ------
    InputError
        An option is unknown or makes no sense.
    SourceError
        Nothing is there, or it cannot be read.
    CameraMissing, CameraBusy
        The camera is not there, or another process has it.
    RuntimeUnavailable
        A package is missing that this kind of source needs.
    """
    text = os.fspath(uri)
    form = _form(text)
    if form in ("camera", "synthetic"):
        target, _, query = text.partition(":")[2].partition("?")
        return (_camera if form == "camera" else _synthetic)(target, query, options)
    if form == "v4l2":
        device = text if text.startswith("/") else text.partition(":")[2]
        target, _, query = device.partition("?")
        return _v4l2(target, query, options)
    if form in ("rtsp", "rtsps", "http", "https"):
        # Whatever follows a ? belongs to the server; a fragment is never sent to one.
        url, _, fragment = text.partition("#")
        _check_url(text, url)
        return _stream(url, fragment, options)
    options_of(shown(text), "", options, _NONE)
    if form == "stdin":
        from edgemask.sources.files import StandardInput

        return StandardInput()
    return _files(text)


def _is_url(text: str) -> bool:
    found = _SCHEME.fullmatch(text)
    return "://" in text or bool(found and found[1].lower() in ("rtsp", "rtsps", "http", "https"))


def _check_url(text: str, url: str) -> None:
    """Refuse what cannot be an address, without showing a password that is in the wrong place."""
    try:
        parts = urlsplit(url)
        valid = parts.hostname is not None and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or "@" in text[len(url) :]:
        raise InputError(
            f"{redact(text)} is not an address: give scheme://host/path; in a user's name or "
            "password write / as %2F, ? as %3F, # as %23 and @ as %40"
        )


def _form(text: str) -> str:
    """Return what kind of source a text names."""
    if "\0" in text:
        raise InputError(f"{text!r} is not a source: leave out the NUL character")
    if text == "-":
        return "stdin"
    if text.startswith(("/dev/video", "/dev/v4l/")):
        return "v4l2"
    found = _SCHEME.fullmatch(text)
    if found and found[1].lower() in _SCHEMES:
        return found[1].lower()
    # The name of a file may have a colon too.
    if found and not os.path.lexists(text) and os.path.sep not in found[1]:
        near = difflib.get_close_matches(found[1].lower(), _SCHEMES, 1, 0.6)
        if near or found[2].startswith("//"):
            hint = f"did you mean {near[0]}:? " if near else ""
            raise InputError(f"{shown(text)} is not a source: {hint}give {_FORMS}")
    return "path"


def _is_video(path: str) -> bool:
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def _camera(target: str, query: str, given: dict[str, Any]) -> Source:
    from edgemask.sources.camera import OPTIONS, PiCamera

    options = options_of(f"camera:{target}", query, given, OPTIONS)
    if target and not (target.isascii() and target.isdigit() and len(target) < 10):
        raise InputError(f"camera:{target} is not a camera: give its number, camera:0")
    return PiCamera(int(target or 0), **options)


def _v4l2(target: str, query: str, given: dict[str, Any]) -> Source:
    from edgemask.sources.v4l2 import OPTIONS, V4l2Camera

    options = options_of(f"v4l2:{target}", query, given, OPTIONS)
    if not target.startswith("/dev/"):
        raise InputError(f"v4l2:{target} is not a camera: give its device, /dev/video0")
    return V4l2Camera(target, **options)


def _synthetic(target: str, query: str, given: dict[str, Any]) -> Source:
    from edgemask.sources.synthetic import Synthetic

    parsers: Parsers = {
        "people": natural(0, 50),
        "size": size,
        "fps": fraction(0.01, 1000),
        "frames": natural(1, 2**31),
        "seed": natural(0, 2**31),
        "live": switch,
    }
    if target:
        raise InputError(f"synthetic:{target}: write its options after a ?, synthetic:?people=3")
    options = options_of("synthetic:", query, given, parsers)
    if options.get("live"):
        options.setdefault("frames", None)
    return Synthetic(**options)


def _stream(url: str, fragment: str, given: dict[str, Any]) -> Source:
    name = redact(url)
    parts = urlsplit(url)
    suffix = Path(parts.path).suffix.lower()
    if parts.scheme.lower().startswith("rtsp"):
        from edgemask.sources.video import NetworkStream

        rtsp: Parsers = {"transport": word("tcp", "udp"), "timeout": fraction(0.1, 600)}
        return NetworkStream(url, **options_of(name, fragment, given, rtsp))
    options = options_of(name, fragment, given, {"timeout": fraction(0.1, 600)})
    if suffix in VIDEO_SUFFIXES - {".mjpeg", ".mjpg"}:
        from edgemask.sources.video import VideoFile

        return VideoFile(url, **options)
    from edgemask.sources.mjpeg import open_http

    opened = open_http(url, **options)
    if opened is not None:
        return opened
    from edgemask.sources.video import NetworkStream

    return NetworkStream(url, **options)


def _files(text: str) -> Source:
    from edgemask.sources.files import ImageFiles

    paths = expand_source(text)
    videos = [path for path in paths if _is_video(path)]
    if not videos:
        return ImageFiles(text, paths)
    if len(paths) > 1:
        raise SourceError(f"{text} stands for {len(paths)} files with videos: open them one by one")
    from edgemask.sources.video import VideoFile

    return VideoFile(videos[0])
