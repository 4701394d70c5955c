"""Films of events: what is kept for them, what is in them, and where they go."""

from __future__ import annotations

import importlib.util
import io
import json
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from live_fakes import until

from edgemask.errors import InputError, RuntimeUnavailable
from edgemask.live.mailbox import Mailbox
from edgemask.settings import EventSettings, Settings, ZoneSettings, load_settings
from edgemask.sinks import start_sinks
from edgemask.watch import clips as module
from edgemask.watch import watcher as watcher_module
from edgemask.watch.clips import MAX_SIDE, Clip, ClipMaker, Ring, encode
from edgemask.watch.store import EventStore
from edgemask.watch.watcher import Watcher

films = pytest.mark.skipif(
    importlib.util.find_spec("av") is None, reason="clips need PyAV: pip install 'edgemask[video]'"
)


SECOND = 10**9
IN, OUT = (20, 10, 50, 90), (140, 10, 170, 90)
LEFT = ZoneSettings(
    "left", ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)), min_seconds=0.5, leave_seconds=0.3
)


def grey(value: int, height: int = 48, width: int = 64) -> Any:
    return np.full((height, width, 3), value % 256, np.uint8)


def event(name: str = "a") -> Any:
    return SimpleNamespace(id=name)


def times(clip: Clip) -> list[float]:
    return [time / SECOND for time, _ in clip.shots]


def frames(content: bytes) -> list[tuple[float, Any]]:
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'edgemask[video]'")
    with av.open(io.BytesIO(content)) as film:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in film.decode(video=0)]


def test_a_clip_is_what_was_seen_about_its_event() -> None:
    ring = Ring(2 * SECOND, 3 * SECOND, SECOND)
    found: list[Clip] = []
    for n in range(20):
        found += ring.add(n * SECOND, grey(n))
        if n == 8:
            assert ring.want(n * SECOND, event())
        assert len(ring._shots) <= 7
    (clip,) = found
    assert times(clip) == [6, 7, 8, 9, 10, 11]
    assert ring.flush() == []


def test_no_more_frames_are_kept_than_asked_for() -> None:
    ring = Ring(SECOND, SECOND, SECOND // 5)
    for n in range(100):
        ring.add(n * SECOND // 30, grey(n))  # 30 a second
    kept = [time / SECOND for time, _ in ring._shots]
    assert all(b - a >= 0.18 for a, b in pairwise(kept))
    assert 4 <= len(kept) <= 6
    assert kept[-1] - kept[0] <= 1


def test_a_frame_that_is_a_little_early_is_kept() -> None:
    ring = Ring(3 * SECOND, 3 * SECOND, SECOND // 5)
    ring.want(0, event())
    for n in range(5):
        ring.add(n * 195_000_000, grey(n))
    (clip,) = ring.flush()
    assert times(clip) == [0, 0.195, 0.39, 0.585, 0.78]


def test_a_slow_camera_loses_nothing() -> None:
    """The frame that completes a clip may come long after the others."""
    ring = Ring(3 * SECOND, 2 * SECOND, SECOND)
    for n in range(4):
        ring.add(n * SECOND, grey(n))
    ring.want(3 * SECOND, event())
    (clip,) = ring.add(1000 * SECOND, grey(9))
    assert times(clip) == [0, 1, 2, 3]


def test_two_events_share_their_frames() -> None:
    ring = Ring(SECOND, 2 * SECOND, SECOND)
    found = []
    for n in range(12):
        found += ring.add(n * SECOND, grey(n))
        if n in (4, 5):
            ring.want(n * SECOND, event(str(n)))
    assert [(clip.event.id, times(clip)) for clip in found] == [
        ("4", [3, 4, 5, 6]),
        ("5", [4, 5, 6, 7]),
    ]


def test_memory_is_bounded() -> None:
    ring = Ring(30 * SECOND, 60 * SECOND, SECOND // 15, most_bytes=20_000)
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    ring.want(0, event())
    for n in range(300):
        ring.add(n * SECOND // 15, noise)
        assert ring.kept_bytes <= 20_000
        assert ring.kept_bytes == sum(len(picture) for _, picture in ring._shots)
    (clip,) = ring.flush()
    assert times(clip)[-1] == pytest.approx(299 / 15)  # the newest are kept
    assert [ring.want(0, event()) for _ in range(10)] == [True] * 8 + [False] * 2


def test_the_newest_frame_is_kept_however_large() -> None:
    ring = Ring(3 * SECOND, 3 * SECOND, SECOND // 5, most_bytes=1)
    ring.add(0, grey(1))
    ring.add(SECOND, grey(2))
    ring.want(SECOND, event())
    (clip,) = ring.flush()
    assert times(clip) == [1]
    assert ring.kept_bytes > 1


def test_clips_that_are_not_promised_count_as_dropped() -> None:
    maker = ClipMaker(EventSettings(clip=True), lambda event, film: None)
    for n in range(10):
        maker.want(0, event(str(n)))
    assert maker.status()["dropped"] == 2
    maker.close()


def test_what_ends_early_is_a_shorter_clip() -> None:
    ring = Ring(SECOND, 60 * SECOND, SECOND)
    for n in range(3):
        ring.add(n * SECOND, grey(n))
    ring.want(2 * SECOND, event())
    (clip,) = ring.flush()
    assert times(clip) == [1, 2]
    ring.want(500 * SECOND, event())
    assert ring.flush() == []  # without any frame there is none


@films
def test_the_film_shows_the_frames_at_their_times() -> None:
    ring = Ring(10 * SECOND, SECOND, SECOND // 10)
    for n in range(5):
        ring.add((10 + n * n) * SECOND // 2, grey(40 * n, 60, 81))
    ring.want(13 * SECOND, event())
    (clip,) = ring.flush()
    film = frames(encode(clip))
    assert [time for time, _ in film] == [0, 0.5, 2, 4.5, 8]
    for n, (_, picture) in enumerate(film):
        assert picture.shape == (60, 80, 3)
        assert abs(picture.mean() - 40 * n) < 6


@films
def test_large_frames_are_made_smaller_and_others_are_left_out() -> None:
    ring = Ring(10 * SECOND, SECOND, SECOND)
    ring.add(0, grey(50, 960, 1280))
    ring.add(SECOND, grey(60, 48, 64))  # the camera came back with another size
    ring.add(2 * SECOND, grey(70, 960, 1280))
    ring.want(2 * SECOND, event())
    film = frames(encode(ring.flush()[0]))
    assert [picture.shape for _, picture in film] == [(MAX_SIDE * 3 // 4, MAX_SIDE, 3)] * 2


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def event(self, record: dict[str, Any]) -> None:
        self.events.append(json.loads(json.dumps(record, allow_nan=False)))

    def occupancy(self, slug: str, count: int) -> None:
        pass


VISIT = [(OUT,)] * 20 + [(IN,)] * 20 + [(OUT,)] * 30


def play(
    results: Any, folder: Path, scenes: Any = VISIT, **events: Any
) -> tuple[Watcher, Heard, list[str]]:
    wanted = EventSettings(
        folder=folder, clip=True, **{"clip_before": 1.0, "clip_after": 1.0, **events}
    )
    heard, box, lines = Heard(), Mailbox[Any](len(scenes) + 1), []
    watcher = Watcher(box, Settings(zone=(LEFT,), events=wanted), [heard], report=lines.append)
    for boxes in scenes:
        box.put(results(*boxes))
    box.close()
    assert watcher.wait(60)
    return watcher, heard, lines


@films
def test_a_visit_is_filmed(results: Any, tmp_path: Path) -> None:
    watcher, heard, lines = play(results, tmp_path)
    by_kind = {record["kind"]: record for record in heard.events}
    assert set(by_kind) == {"enter", "leave", "clip"}
    enter, clip = by_kind["enter"], by_kind["clip"]
    assert clip["event"] == enter["id"] != clip["id"]
    same = ("zone", "track", "wall_ns", "box", "schema")
    assert [clip[name] for name in same] == [enter[name] for name in same]
    assert "clip" not in enter
    path = Path(clip["clip"])
    assert path.parent == tmp_path
    assert path.suffix == ".mp4"
    film = frames(path.read_bytes())
    np.testing.assert_allclose([time for time, _ in film], np.arange(10) / 5, atol=1e-3)
    log = (tmp_path / "events.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in log] == heard.events
    assert watcher.status()["clips"]["failed"] == 0
    assert lines == []


@films
def test_what_the_source_no_longer_shows_is_not_waited_for(results: Any, tmp_path: Path) -> None:
    _, heard, _ = play(results, tmp_path, [(IN,)] * 10, clip_after=60.0)
    assert [record["kind"] for record in heard.events][-1] == "clip"


@films
def test_of_many_entries_at_once_each_is_filmed(results: Any, tmp_path: Path) -> None:
    zones = tuple(replace(LEFT, name=f"zone {n}") for n in range(6))
    wanted = EventSettings(folder=tmp_path, clip=True, clip_before=1.0, clip_after=0.4)
    heard, box = Heard(), Mailbox[Any](40)
    watcher = Watcher(box, Settings(zone=zones, events=wanted), [heard])
    for _ in range(30):
        box.put(results(IN))
    box.close()
    assert watcher.wait(60)
    kinds = [record["kind"] for record in heard.events]
    assert (kinds.count("enter"), kinds.count("clip")) == (6, 6)


@films
def test_on_a_slow_disk_a_clip_is_not_told_ahead_of_its_event(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = EventStore.save

    def slow(self: EventStore, name: str, content: bytes, suffix: str = ".jpg") -> Path | None:
        if suffix == ".jpg":
            time.sleep(0.5)
        return save(self, name, content, suffix)

    monkeypatch.setattr(EventStore, "save", slow)
    _, heard, _ = play(results, tmp_path, [(IN,)] * 10, clip_after=60.0)
    assert [record["kind"] for record in heard.events] == ["enter", "clip"]


@films
def test_a_camera_that_stops_does_not_hold_a_clip_back(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher_module, "_SILENCE", 0.1)
    wanted = EventSettings(folder=tmp_path, clip=True, clip_after=60.0)
    heard, box = Heard(), Mailbox[Any](50)
    watcher = Watcher(box, Settings(zone=(LEFT,), events=wanted), [heard])
    try:
        for _ in range(10):
            box.put(results(IN))
        until(lambda: any(record["kind"] == "clip" for record in heard.events), 30)
    finally:
        watcher.stop()


def test_clips_keep_to_the_budget(results: Any, tmp_path: Path) -> None:
    _, heard, lines = play(results, tmp_path, disk_budget="16 kB")
    assert {record["kind"] for record in heard.events} >= {"enter", "leave"}
    assert sum(path.stat().st_blocks for path in tmp_path.iterdir()) * 512 <= 16_000
    for line in lines:
        assert "budget too small" in line


def test_a_codec_that_fails_stops_nothing(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(clip: Clip) -> bytes:
        raise ValueError("no such codec")

    monkeypatch.setattr(module, "encode", broken)
    watcher, heard, _ = play(results, tmp_path)
    assert {record["kind"] for record in heard.events} == {"enter", "leave"}
    assert watcher.status()["clips"]["failed"] == 1


def test_without_pyav_it_is_said_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ImportError("No module named 'av'")

    monkeypatch.setattr("edgemask.sources.video.import_module", missing)
    wanted = EventSettings(folder=tmp_path, clip=True)
    threads = threading.active_count()
    with pytest.raises(RuntimeUnavailable, match=r"events\.clip needs PyAV.*set clip = false"):
        start_sinks(None, Settings(zone=(LEFT,), events=wanted))  # type: ignore[arg-type]
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("clip = true", "events.clip is true but events.folder is not set"),
        ("clip = 1", "events.clip is 1; give true or false"),
        ("clip_before = 31", "events.clip_before is 31; give a number from 0 to 30 seconds"),
        ("clip_after = 0", "events.clip_after is 0; give a number from 1 to 60 seconds"),
        ("clip_fps = 60", "give a number from 0.5 to 15 frames per second"),
        ("clip_seconds = 3", "events.clip_seconds is not a setting"),
    ],
)
def test_mistakes_in_the_configuration(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "edgemask.toml"
    path.write_text(f"[events]\n{text}\n")
    with pytest.raises(InputError) as caught:
        load_settings(path)
    assert words in str(caught.value)
