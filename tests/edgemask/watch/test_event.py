"""What an event is called."""

from __future__ import annotations

import time
from typing import Any

import pytest

from edgemask.watch.event import Event
from edgemask.watch.rules import Sighting
from edgemask.watch.store import _SNAPSHOT


def made(**changes: Any) -> Event:
    values: dict[str, Any] = {
        "number": 7, "kind": "enter", "zone": "Z", "slug": "z",
        "sighting": Sighting("person", 0.9, (0, 0, 1, 1)), "track": 1, "seconds": 1.0, "count": 1,
        "wall_ns": 1_700_000_000_005_000_000, "sensor_ns": None, "frame": "f", "size": (1, 1),
    }  # fmt: skip
    return Event(**{**values, **changes})


def test_the_time_is_utc_wherever_the_board_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert made().id == "20231114T221320005Z-z-enter-7"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_long_name_is_cut_and_still_one_of_the_stores() -> None:
    long = made(slug="x" * 300).id
    assert len(long) < 80
    assert _SNAPSHOT.fullmatch(f"00000001-{long}.jpg")


def test_a_clip_names_its_event() -> None:
    told = made().to_dict(clip="a.mp4")
    assert told["id"] == "20231114T221320005Z-z-enter-7-clip"
    assert told["event"] == made().id
