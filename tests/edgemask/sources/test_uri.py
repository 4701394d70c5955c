"""Options of a source, and what of a URL may be shown."""

from __future__ import annotations

import pytest

from edgemask.errors import InputError
from edgemask.sources import uri

PARSERS = {
    "size": uri.size,
    "fps": uri.fraction(0.1, 100),
    "buffers": uri.natural(2, 8),
    "format": uri.word("yuyv", "mjpeg"),
    "hflip": uri.switch,
}


def test_values():
    text = "size=640x480&fps=7.5&buffers=3&format=mjpeg&hflip=yes"
    assert uri.options_of("camera:0", text, {}, PARSERS) == {
        "size": (640, 480), "fps": 7.5, "buffers": 3, "format": "mjpeg", "hflip": True,
    }  # fmt: skip


def test_keywords_win_over_the_text():
    given = {"size": (320, 240), "fps": 5, "hflip": False}
    assert uri.options_of("camera:0", "fps=30", given, PARSERS) == {
        "size": (320, 240), "fps": 5.0, "hflip": False,
    }  # fmt: skip


def test_both_bounds_are_allowed() -> None:
    assert [uri.natural(2, 16)(text) for text in ("2", "16")] == [2, 16]


def test_switches_have_no_case() -> None:
    assert uri.switch("Yes") is True
    assert uri.switch("OFF") is False


@pytest.mark.parametrize("value", [True, False])
def test_a_switch_from_python_may_be_a_number(value: bool) -> None:
    parsers = {"live": uri.natural(0, 1)}
    assert uri.options_of("x", "", {"live": value}, parsers) == {"live": int(value)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sise=640x480", ["camera:0", "'sise'", "did you mean size?"]),
        ("framerate=3", ["'framerate'", "size, fps, buffers, format, hflip"]),
        ("size=640", ["size=640", "640x480"]),
        ("size=641x480", ["even"]),
        ("size=0x480", ["even numbers from 16"]),
        ("size=99999x480", ["16384"]),
        ("fps=fast", ["fps=fast", "from 0.1 to 100"]),
        ("fps=nan", ["fps=nan"]),
        ("fps=", ["from 0.1 to 100"]),
        ("buffers=1", ["from 2 to 8"]),
        ("buffers=2.5", ["whole number"]),
        ("buffers=²", ["whole number"]),
        ("format=raw", ["yuyv or mjpeg"]),
        ("hflip=maybe", ["1 or 0"]),
        ("fps=1&fps=2", ["twice"]),
    ],
)
def test_bad_options_are_one_line_that_helps(text, words):
    with pytest.raises(InputError) as caught:
        uri.options_of("camera:0", text, {}, PARSERS)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_source_without_options():
    with pytest.raises(InputError, match="it takes none"):
        uri.options_of("-", "size=640x480", {}, {})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://host/live", "rtsp://host/live"),
        ("rtsp://user:hunter2@host:554/live", "rtsp://user:***@host:554/live"),
        ("rtsp://user:p@ss@word@host/live", "rtsp://user:***@host/live"),
        ("rtsp://user@host/live", "rtsp://user@host/live"),
        (
            "http://host/v?user=me&password=hunter2&n=1",
            "http://host/v?user=me&password=***&n=1",
        ),
        ("http://host/v?apiToken=hunter2", "http://host/v?apiToken=***"),
        ("http://user:hunter2@[::1]:80/v#x=hunter2", "http://user:***@[::1]:80/v"),
        ("http://user:hunter2@[::1/v", "http://user:***@[::1/v"),
        ("rtsp:/user:hunter2@host/live", "rtsp:/user:***@host/live"),
        ("rtsp://user:hunt/er2@host/live", "rtsp://user:***@host/live"),
        ("rtsp://user:hunt?er2@host/live", "rtsp://user:***@host/live"),
        ("rtsp://user:hunt#er2@host/live", "rtsp://user:***@host/live"),
        ("rtsp://user:p@ss/word@host:554/live", "rtsp://user:***@host:554/live"),
        (
            "rtsp://host:554/user=me&password=hunter2&channel=1&stream=0.sdp",
            "rtsp://host:554/user=me&password=***&channel=1&stream=0.sdp",
        ),
        (
            "rtsp://host/user=me_password=hun_ter2_channel=1_stream=0.sdp",
            "rtsp://host/user=me_password=***_channel=1_stream=0.sdp",
        ),
        (
            "http://host/snap.cgi?loginuse=me&loginpas=hunter2",
            "http://host/snap.cgi?loginuse=me&loginpas=***",
        ),
        ("http://host/photo@2x.jpg?n=1", "http://host/photo@2x.jpg?n=1"),
        ("http://host/film.mp4", "http://host/film.mp4"),
    ],
)
def test_redact(url, shown):
    assert uri.redact(url) == shown


@pytest.mark.parametrize("name", ["apikey", "key", "sig", "signature", "auth", "Token"])
def test_names_of_secrets(name: str) -> None:
    assert uri.redact(f"http://host/a?{name}=x17&size=3") == f"http://host/a?{name}=***&size=3"
