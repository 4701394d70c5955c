"""From results to events, pictures, programs and listeners."""

from __future__ import annotations

import gc
import io
import json
import os
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
from live_fakes import until
from PIL import Image

from edgemask.live.mailbox import Mailbox
from edgemask.settings import EventSettings, Settings, ZoneSettings
from edgemask.watch import clips as clips_module
from edgemask.watch import watcher as watcher_module
from edgemask.watch.event import SCHEMA
from edgemask.watch.watcher import Scene, Watcher, snapshot

LEFT = ZoneSettings(
    "Left half",
    ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),
    min_seconds=0.5,
    leave_seconds=0.3,
    cooldown=0,
)
QUICK = ZoneSettings("q", LEFT.polygon, min_seconds=0, leave_seconds=0, cooldown=0)
IN, OUT = (20, 10, 50, 90), (140, 10, 170, 90)


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self):
        self.events, self.occupancies = [], []

    def event(self, record):
        self.events.append(json.loads(json.dumps(record, allow_nan=False)))

    def occupancy(self, slug, count):
        self.occupancies.append((slug, count))


@pytest.fixture
def play(results):
    """Run a watcher over scenes, one tuple of boxes per frame, and return it with its listener."""
    started = []

    def run(scenes, *, zones=(LEFT,), report=lambda line: None, **events):
        heard, box = Heard(), Mailbox(len(scenes) + 1)
        watcher = Watcher(
            box, Settings(zone=zones, events=EventSettings(**events)), [heard], report=report
        )
        started.append(watcher)
        for boxes in scenes:
            box.put(results(*boxes))
        box.close()
        assert watcher.wait(20)
        return watcher, heard

    yield run
    for watcher in started:
        watcher.stop()


VISIT = [(OUT,)] * 3 + [(IN,)] * 8 + [()] * 5


def test_a_visit(play):
    watcher, heard = play(VISIT)
    enter, leave = heard.events
    assert (enter["schema"], enter["kind"], enter["zone"]) == (SCHEMA, "enter", "Left half")
    assert (enter["class"], enter["score"], enter["box"]) == ("person", 0.9, [20, 10, 50, 90])
    assert (enter["seconds"], enter["count"], enter["size"]) == (0.5, 1, [100, 200])
    assert (enter["frame"], enter["sensor_ns"]) == ("f-000008", 800_000_000)
    assert enter["time"] == "2023-11-14T22:13:20.800Z"
    assert (leave["kind"], leave["seconds"], leave["count"]) == ("leave", 0.7, 0)
    assert enter["track"] == leave["track"]
    assert enter["id"] != leave["id"]
    assert (enter["snapshot"], leave["snapshot"]) == (None, None)
    assert heard.occupancies == [("left_half", 0), ("left_half", 1), ("left_half", 0)]
    assert watcher.events == 2


def test_leaving_can_be_left_out(play):
    _, heard = play(VISIT, leaving=False)
    assert [event["kind"] for event in heard.events] == ["enter"]


def test_two_zones_have_their_own_rules(play):
    right = ZoneSettings("right", ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)), min_seconds=0)
    _, heard = play(VISIT, zones=(LEFT, right))
    assert [(e["kind"], e["zone"]) for e in heard.events] == [
        ("enter", "right"),
        ("enter", "Left half"),
        ("leave", "Left half"),
    ]


def test_pictures_and_log(play, tmp_path):
    watcher, heard = play(VISIT, folder=tmp_path / "events")
    enter, leave = heard.events
    with Image.open(enter["snapshot"]) as picture:
        assert (picture.format, picture.size) == ("JPEG", (200, 100))
    assert leave["snapshot"] is None  # nobody would be on it
    log = (tmp_path / "events" / "events.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in log] == heard.events
    assert watcher.status()["disk"]["state"] == "ok"


def test_no_pictures_if_not_wanted(play, tmp_path):
    _, heard = play(VISIT, folder=tmp_path, snapshot=False)
    assert heard.events[0]["snapshot"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["events.jsonl"]


def test_every_visit_has_its_picture(results, tmp_path) -> None:
    """However many there were before: a frame that was drawn gives back its place too."""
    box, heard = Mailbox(2), Heard()
    watcher = Watcher(box, Settings(zone=(QUICK,), events=EventSettings(folder=tmp_path)), [heard])
    for n in range(12):
        box.put(results(*([] if n % 2 else [IN])))
        until(lambda count=n + 1: len(heard.events) == count)
    watcher.stop()
    assert [bool(record["snapshot"]) for record in heard.events] == [True, False] * 6


def test_who_leaves_in_the_frame_of_an_entry_has_no_picture(play, tmp_path) -> None:
    right = replace(QUICK, name="r", polygon=((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)))
    _, heard = play([(IN,), (OUT,)], zones=(QUICK, right), folder=tmp_path)
    told = [(record["kind"], record["zone"], bool(record["snapshot"])) for record in heard.events]
    assert told == [("enter", "q", True), ("leave", "q", False), ("enter", "r", True)]
    assert len(list(tmp_path.glob("*.jpg"))) == 2


def test_a_disk_that_fails_is_reported_once_and_stops_no_event(play, tmp_path, monkeypatch):
    # The scenes arrive all at once, which a camera's do not: room for all of their events.
    monkeypatch.setattr(watcher_module, "_WAITING", 6)
    (tmp_path / "file").write_bytes(b"")
    lines = []
    watcher, heard = play(VISIT * 3, folder=tmp_path / "file", report=lines.append)
    assert len(heard.events) == 6
    assert [line.partition(":")[0] for line in lines] == ["snapshots", "events.jsonl"]
    assert "not writable" in lines[0]
    assert watcher.status()["disk"]["failed"] == 9


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="pidfd_open is Linux's")
def test_hook_gets_the_events(play, tmp_path):
    watcher, heard = play(VISIT, hook=("/bin/sh", "-c", f"cat >> {tmp_path}/log"))
    watcher.stop(20)
    for _ in range(200):
        if watcher.status()["hook"]["runs"] == 2 and (tmp_path / "log").exists():
            break
        time.sleep(0.05)
    lines = (tmp_path / "log").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == heard.events


def test_a_zone_outside_of_the_image_is_an_error(play):
    far = ZoneSettings("far", ((3000, 0), (4000, 0), (4000, 500)))
    lines = []
    watcher, _ = play(VISIT, zones=(far,), report=lines.append)
    assert "'far' covers no pixel" in str(watcher.error)
    assert lines == [str(watcher.error)]
    assert watcher.status()["error"] == str(watcher.error)


def test_slow_pictures_do_not_hold_up_the_rules(play, tmp_path, monkeypatch):
    def slow(result, polygons):
        time.sleep(0.2)
        return b"jpeg"

    monkeypatch.setattr(watcher_module, "snapshot", slow)
    watcher, heard = play([(IN,), ()] * 20, zones=(QUICK,), folder=tmp_path)
    assert watcher.events == len(heard.events) == 40
    assert watcher.status()["dropped"] == 0
    assert [record["id"].split("-")[-1] for record in heard.events] == [
        str(n + 1) for n in range(40)
    ]
    # At most four frames wait for their pictures; what comes meanwhile is told without.
    pictured = [record for record in heard.events if record["snapshot"]]
    assert 1 <= len(pictured) < 20


def test_pictures_come_again_after_frames_were_dropped(play, tmp_path, monkeypatch):
    """A frame that is forgotten gives back its place among those that wait for a picture."""

    def slow(result, polygons):
        time.sleep(0.05)
        return b"jpeg"

    monkeypatch.setattr(watcher_module, "snapshot", slow)
    monkeypatch.setattr(watcher_module, "_WAITING", 2)
    watcher, heard = play([(IN,), ()] * 40 + [(IN,)], zones=(QUICK,), folder=tmp_path)
    assert watcher.status()["dropped"] > 40
    assert heard.events[-1]["kind"] == "enter"
    assert heard.events[-1]["snapshot"]


def test_many_events_of_one_frame_are_all_told(play, tmp_path):
    zones = [
        ZoneSettings(f"z{n}", LEFT.polygon, min_seconds=0, leave_seconds=0, cooldown=0)
        for n in range(9)
    ]
    watcher, heard = play([(IN,), ()], zones=zones, folder=tmp_path)
    assert watcher.events == len(heard.events) == 18
    entered = [record for record in heard.events if record["kind"] == "enter"]
    assert len(entered) == 9
    assert all(record["snapshot"] for record in entered)


def test_an_event_that_cannot_be_told_does_not_silence_the_next(play, tmp_path, monkeypatch):
    def broken(result, polygons):
        raise OSError("broken data stream")

    monkeypatch.setattr(watcher_module, "snapshot", broken)
    lines = []
    watcher, heard = play(VISIT * 2, folder=tmp_path, report=lines.append)
    assert watcher.events == len(heard.events) == 4
    assert [record["snapshot"] for record in heard.events] == [None] * 4
    assert watcher.failed == watcher.status()["failed"] == 2
    assert lines == ["snapshot could not be delivered (OSError: broken data stream)"] * 2


def test_one_thread_at_a_time_tells() -> None:
    inside, most = [], []

    class Slow(Heard):
        def event(self, record):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    watcher = Watcher(Mailbox(4), Settings(zone=(QUICK,)), [Slow()])
    threads = [threading.Thread(target=watcher._announce, args=({"id": n},)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    watcher.stop()
    assert most == [1] * 4


def test_a_clip_that_could_not_be_kept_is_not_told(results, tmp_path, monkeypatch) -> None:
    heard = Heard()
    settings = Settings(zone=(QUICK,), events=EventSettings(folder=tmp_path))
    watcher = Watcher(Mailbox(4), settings, [heard])
    (event,) = watcher._scene.update(0, results(IN))
    monkeypatch.setattr(watcher._store, "save", lambda *rest: None)
    watcher._deliver_clip(event, b"film")
    watcher.stop()
    assert heard.events == []


def test_a_name_that_is_no_text_is_kept(play, results, tmp_path):
    made = results(IN)
    box, heard = Mailbox(4), Heard()
    settings = Settings(zone=(QUICK,), events=EventSettings(folder=tmp_path))
    watcher = Watcher(box, settings, [heard])
    name = os.fsdecode(b"caf\xe9.jpg")
    box.put(replace(made, frame=replace(made.frame, name=name)))
    box.close()
    assert watcher.wait(20)
    (line,) = (tmp_path / "events.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["frame"] == heard.events[0]["frame"] == name


def test_another_resolution_for_a_while_does_not_end_it(results):
    pixels = ZoneSettings("door", ((100, 0), (200, 0), (200, 100), (100, 100)), min_seconds=0)
    pixels = replace(pixels, leave_seconds=0.3, cooldown=0)
    box, heard, lines = Mailbox(100), Heard(), []
    watcher = Watcher(box, Settings(zone=(pixels,)), [heard], report=lines.append)
    for size, count in (((100, 200), 3), ((50, 100), 5), ((100, 200), 3)):
        for _ in range(count):
            box.put(results(OUT if size[1] == 200 else (10, 5, 30, 45), size=size))
    box.close()
    assert watcher.wait(20)
    assert watcher.error is None
    assert [record["kind"] for record in heard.events] == ["enter", "leave", "enter"]
    said, recovered = lines
    assert said.startswith("zones: the zone 'door' covers no pixel of the 100x50 image")
    assert recovered == "zones: ok"


def test_when_it_ends_nobody_is_in_a_zone(play):
    watcher, heard = play([(IN,)] * 10)
    assert watcher.status()["zones"] == {"left_half": 0}
    assert heard.occupancies == [("left_half", 0), ("left_half", 1), ("left_half", 0)]
    assert [record["kind"] for record in heard.events] == ["enter"]


def test_one_listener_that_fails_does_not_keep_the_others_from_hearing(results, tmp_path):
    class Broken(Heard):
        def event(self, record):
            raise ValueError("no")

        occupancy = event

    heard, box, out = Heard(), Mailbox(20), tmp_path / "out"
    hook = ("sh", "-c", f"cat > {out}")
    settings = Settings(zone=(LEFT,), events=EventSettings(hook=hook))
    watcher = Watcher(box, settings, [Broken(), heard])
    for _ in range(10):
        box.put(results(IN))
    box.close()
    assert watcher.wait(20)
    watcher.stop()
    assert [record["kind"] for record in heard.events] == ["enter"]
    assert json.loads(out.read_text())["kind"] == "enter"
    assert watcher.failed


def test_nobody_is_left_in_a_zone_when_the_camera_falls_silent(results, monkeypatch):
    monkeypatch.setattr(watcher_module, "_SILENCE", 0.1)
    quick = replace(LEFT, min_seconds=0)
    box, heard = Mailbox(4), Heard()
    watcher = Watcher(box, Settings(zone=(quick,)), [heard])
    box.put(results(IN))
    deadline = time.monotonic() + 20
    while len(heard.events) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [record["kind"] for record in heard.events] == ["enter", "leave"]
    assert heard.occupancies == [("left_half", 0), ("left_half", 1), ("left_half", 0)]
    # The camera is back, and so is whoever was there.
    box.put(results(IN))
    box.close()
    assert watcher.wait(20)
    assert [record["kind"] for record in heard.events] == ["enter", "leave", "enter"]


@pytest.fixture
def puzzling(monkeypatch) -> None:
    """Two people in a frame are more than the rules can take."""
    real = Scene.update

    def update(scene, now_ns, result):
        if len(result.instances) == 2:
            raise ZeroDivisionError("two")
        return real(scene, now_ns, result)

    monkeypatch.setattr(Scene, "update", update)


@pytest.mark.usefixtures("puzzling")
def test_a_frame_that_cannot_be_watched_does_not_end_watching(play):
    lines = []
    puzzle = (IN, OUT)
    watcher, heard = play(
        [puzzle, (IN,), puzzle, puzzle, (IN,), ()], zones=(QUICK,), report=lines.append
    )
    assert [record["kind"] for record in heard.events] == ["enter", "leave"]
    assert lines == [
        "watching went wrong on a frame (ZeroDivisionError: two), and goes on with the next"
    ]
    status = watcher.status()
    assert (status["errors"], status["last_error"]) == (3, "ZeroDivisionError: two")
    assert (watcher.error, status["error"]) == (None, None)


@pytest.mark.usefixtures("puzzling")
def test_nobody_is_left_in_a_zone_when_no_frame_can_be_watched(results, monkeypatch):
    monkeypatch.setattr(watcher_module, "_SILENCE", 0.05)
    box, heard = Mailbox(1), Heard()
    watcher = Watcher(box, Settings(zone=(QUICK,)), [heard])
    box.put(results(IN))
    assert until(lambda: len(heard.events) == 1)
    for _ in range(2000):
        box.put(results(IN, OUT))
        if len(heard.events) == 2:
            break
        time.sleep(0.01)
    watcher.stop()
    assert [record["kind"] for record in heard.events] == ["enter", "leave"]
    assert watcher.errors


def test_a_clip_that_cannot_take_a_frame_hides_nobody(results, tmp_path, monkeypatch):
    monkeypatch.setattr(clips_module, "_jpeg", lambda rgb: 1 // 0)
    box, heard = Mailbox(4), Heard()
    events = EventSettings(folder=tmp_path, clip=True, snapshot=False)
    watcher = Watcher(box, Settings(zone=(QUICK,), events=events), [heard])
    box.put(results(IN))
    box.close()
    assert watcher.wait(20)
    watcher.stop()
    assert [record["kind"] for record in heard.events] == ["enter"]
    assert watcher.errors == 1


def test_stop_ends_all_threads(results):
    before = threading.active_count()
    watcher = Watcher(Mailbox(1), Settings(zone=(LEFT,), events=EventSettings(hook=("true",))))
    watcher.stop()
    assert threading.active_count() == before


def test_snapshot_leaves_the_frame_alone(results):
    result = results(IN)
    before = result.frame.rgb.copy()
    polygon = np.array([(100, 5), (190, 5), (190, 95), (100, 95)], np.float32)
    picture = np.asarray(Image.open(io.BytesIO(snapshot(result, [polygon]))))
    assert np.array_equal(result.frame.rgb, before)
    # Yellow on the edge of the zone, green on the person, grey elsewhere; JPEG is not exact.
    assert picture[5, 150, 0] > picture[5, 150, 2] + 40
    assert picture[50, 35, 1] > picture[50, 35, 0] + 20
    assert np.abs(picture[50, 150].astype(int) - 90).max() < 12


def test_the_outline_of_a_zone_is_closed(results) -> None:
    polygon = np.array([(100, 5), (190, 5), (190, 95), (100, 95)], np.float32)
    picture = np.asarray(Image.open(io.BytesIO(snapshot(results(IN), [polygon]))))
    assert picture[50, 100, 0] > picture[50, 100, 2] + 40


def test_the_most_patient_zone_decides_how_long_somebody_is_remembered(results) -> None:
    slow = replace(QUICK, name="slow", leave_seconds=5)
    scene = Scene([replace(QUICK, leave_seconds=0.2), slow])
    told = []
    for n in range(20):
        result = results(*([] if 3 <= n < 15 else [IN]))
        told += [(e.kind, e.zone, e.track) for e in scene.update(n * 10**8, result)]
    assert [entry for entry in told if entry[1] == "slow"] == [("enter", "slow", 1)]


def test_scene_knows_a_new_size(results):
    scene = Scene([LEFT])
    scene.update(0, results(IN))
    scene.update(1, results(IN, size=(200, 400)))
    assert scene.polygons[0].max() == 200


def test_a_watcher_that_has_stopped_lets_go_of_its_listeners_at_once():
    # A cycle would keep their sockets open until the garbage is collected, which a quiet process
    # may not do for hours.
    heard = Heard()
    gone = weakref.ref(heard)
    watcher = Watcher(Mailbox(), Settings(zone=(LEFT,)), [heard])
    watcher.stop()
    gc.disable()
    try:
        del heard, watcher
        assert gone() is None
    finally:
        gc.enable()
