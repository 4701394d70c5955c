"""The engine, with sources that fail and segmenters that are slow."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from live_fakes import FakeBoard, FakeSource, Opener, SlowSegmenter, until

from edgemask.errors import CameraBusy, CameraMissing, InputError, SourceError, SourceTimeout
from edgemask.live.engine import Engine
from edgemask.live.result import summary

FAST = {"backoff": (0.01, 0.04), "board": FakeBoard(), "read_timeout": 0.2}


def make(opener: Callable[[], Any], segmenter: Any = None, **options: Any) -> Engine:
    return Engine(opener, segmenter or SlowSegmenter(), **{**FAST, **options})


def files(count: int, **options: Any) -> Opener:
    return Opener(lambda: FakeSource(live=False, frames=count, **options))


def camera(*script: Any, **options: Any) -> Callable[[], FakeSource]:
    return lambda: FakeSource(script, **options)


def test_every_file_once_and_in_order() -> None:
    engine = make(files(50))
    results = engine.subscribe(100)
    with engine:
        found = list(results)
    assert [r.frame.index for r in found] == list(range(50))
    assert [r.sequence for r in found] == list(range(50))
    status = engine.status()
    assert (status["frames"], status["dropped"], status["errors"]) == (50, 0, 0)


def test_the_state_of_files_that_are_finished() -> None:
    with make(files(3)) as engine:
        assert engine.wait(60)
        assert until(lambda: engine.status()["source"]["state"] == "ended")
        assert engine.status()["source"]["retry_in_s"] is None
        assert not engine.processing()


def test_of_a_camera_the_newest_frame_is_taken() -> None:
    opener = Opener(camera(every=0.002))
    segmenter = SlowSegmenter(seconds=0.05)
    engine = make(opener, segmenter)
    results = engine.subscribe(100)
    with engine:
        found = [results.get(60) for _ in range(8)]
    indices = [r.frame.index for r in found if r]
    assert indices == sorted(set(indices))
    assert indices[-1] - indices[0] >= 7 * 20
    # A queue would let each frame wait for all before it: here it waits for one at most.
    assert max(r.latency_ms for r in found[2:] if r) < 500
    assert engine.status()["dropped"] > 100


def test_the_next_frame_is_decoded_while_one_is_segmented() -> None:
    begun: list[int] = []

    class File(FakeSource):
        def read(self, timeout: float = 5.0) -> Any:
            begun.append(len(begun))
            return super().read(timeout)

    class Waiting(SlowSegmenter):
        def __call__(self, rgb: Any) -> Any:
            until(lambda: rgb[0, 0, 0] + 1 in begun, 2)  # in vain is an error of this frame
            return super().__call__(rgb)

    with make(lambda: File(live=False, frames=20), Waiting()) as engine:
        assert engine.wait(60)
    assert engine.status()["errors"] == 0
    assert engine.status()["frames"] == 20


def test_a_frame_that_fails_does_not_end_the_camera() -> None:
    segmenter = SlowSegmenter(fail_on=lambda number: number % 2 == 1)
    engine = make(files(20), segmenter)
    results = engine.subscribe(100)
    with engine:
        found = list(results)
    assert [r.frame.index for r in found] == list(range(0, 20, 2))
    status = engine.status()
    assert (status["frames"], status["errors"]) == (10, 10)
    assert status["last_error"] == "camera-000019: the network failed"


def test_a_file_that_cannot_be_read_is_left_out() -> None:
    bad = SourceError("b.jpg is damaged: leave it out")
    engine = make(Opener(camera(bad, live=False, frames=3)))
    with engine:
        assert engine.wait(60)
    assert (engine.status()["frames"], engine.status()["errors"]) == (3, 1)


def test_a_source_that_only_fails_is_not_asked_for_ever() -> None:
    class Broken(FakeSource):
        def read(self, timeout: float = 5.0) -> Any:
            raise SourceError("no frame in it")

    opener = Opener(lambda: Broken(live=False))
    with make(opener) as engine:
        until(lambda: len(opener.calls) >= 2)
        assert until(lambda: engine.status()["source"]["state"] == "failed")


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (CameraBusy("camera 0 is held by process 42"), "busy"),
        (CameraMissing("no camera 0"), "missing"),
        (SourceTimeout("no answer"), "timeout"),
        (SourceError("connection refused"), "failed"),
        (RuntimeError("a driver's own"), "failed"),
    ],
)
def test_a_source_that_cannot_be_opened_is_tried_again(error: Exception, state: str) -> None:
    opener = Opener(error)
    with make(opener) as engine:
        seen = until(lambda: engine.status()["source"]["error"] and engine.status()["source"])
        assert seen["state"] == state
        assert seen["error"] == str(error)
        until(lambda: len(opener.calls) > 3)
        opener.now(camera())
        until(lambda: engine.status()["source"]["state"] == "running")
        assert engine.status()["source"]["error"] is None
        until(engine.processing)


def test_a_source_that_makes_no_sense_is_given_up() -> None:
    with make(Opener(InputError("camera:x: give a number"))) as engine:
        assert engine.wait(60)
        source = engine.status()["source"]
    assert source["error"] == "camera:x: give a number"
    assert source["state"] == "failed"
    assert source["retry_in_s"] is None


def test_pauses_double_up_to_the_cap_and_start_anew_after_a_frame() -> None:
    gone = CameraMissing("gone")
    opener = Opener(gone, gone, gone, gone, gone, camera(frames=1), gone, gone, camera())
    with make(opener, backoff=(0.05, 0.2)) as engine:
        until(lambda: len(opener.calls) == 9, 10)
        until(lambda: engine.status()["frames"] >= 2)
    pauses = [b - a for a, b in pairwise(opener.calls)]
    for pause, least in zip(pauses, (0.05, 0.1, 0.2, 0.2, 0.2, 0.05, 0.1), strict=False):
        assert pause >= least
    assert pauses[4] < 0.75  # doubled without a cap it is 0.8
    assert pauses[5] < 0.2  # after the camera that gave one frame


@pytest.mark.parametrize(
    "failure", [CameraMissing("unplugged"), SourceTimeout("silent"), None, 60.0],
    ids=["unplugged", "silent", "ended", "hangs"],
)  # fmt: skip
def test_a_camera_that_stops_comes_back(failure: Any) -> None:
    opener = Opener(camera(0.0, failure), camera())
    engine = make(opener)
    results = engine.subscribe(1_000_000)  # however long this thread has to wait for a CPU
    with engine:
        until(lambda: len(opener.sources) == 2)
        until(lambda: engine.status()["source"]["state"] == "running")
        until(lambda: engine.status()["frames"] > 3)
        assert engine.status()["source"]["failures"] == 1
        assert opener.sources[0].closed
    sequence = [r.sequence for r in results]
    assert sequence == list(range(len(sequence)))  # the frames' own numbers start again
    until(lambda: opener.sources[1].closed)  # by a thread that stop() does not wait for long


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_neither_threads_nor_descriptors_are_lost() -> None:
    class Holding(FakeSource):
        """Holds a descriptor, as a camera does."""

        def __init__(self) -> None:
            super().__init__([SourceError("unplugged")])
            self._file = open("/dev/null")  # noqa: SIM115

        def close(self) -> None:
            super().close()
            self._file.close()

    threads, before = threading.active_count(), descriptors()
    for _ in range(3):
        opener = Opener(Holding)
        with make(opener, backoff=(0.001, 0.001)) as engine:
            until(lambda calls=opener.calls: len(calls) > 20)
            assert threading.active_count() <= threads + 3
        assert engine.wait(0)
        assert all(source.closed for source in opener.sources)
    until(lambda: threading.active_count() == threads)
    assert descriptors() == before


@pytest.mark.parametrize("script", [[60.0], [CameraMissing("no")], []])
def test_stop_is_quick(script: list[Any]) -> None:
    engine = make(Opener(camera(*script)), read_timeout=30.0, backoff=(30.0, 30.0))
    results = engine.subscribe()
    engine.start()
    time.sleep(0.05)
    start = time.monotonic()
    assert engine.stop()
    assert time.monotonic() - start < 1
    assert engine.status()["source"]["state"] == "stopped"
    assert engine.stop()  # again, harmless
    while results.get(1):
        pass
    assert results.finished


def test_stop_does_not_wait_for_a_driver_that_hangs() -> None:
    release = threading.Event()

    class Hanging(FakeSource):
        def read(self, timeout: float = 5.0) -> Any:
            release.wait(20)
            return None

        def close(self) -> None:
            release.wait(20)

    engine = make(Opener(Hanging))
    engine.start()
    time.sleep(0.05)
    start = time.monotonic()
    assert not engine.stop()
    assert time.monotonic() - start < 2
    release.set()


def test_a_slow_reader_misses_frames_and_slows_nothing() -> None:
    engine = make(files(100))
    slow, fast = engine.subscribe(1), engine.subscribe(200)
    with engine:
        assert engine.wait(60)
    assert [r.sequence for r in slow] == [99]
    assert slow.dropped == 99
    assert len(list(fast)) == 100


def test_a_reader_can_leave_and_come_late() -> None:
    with make(Opener(camera())) as engine:
        with engine.subscribe() as results:
            assert results.get(60)
        before = results.dropped
        until(lambda: engine.status()["frames"] > 10)
        assert results.dropped == before
    late = engine.subscribe()
    assert late.get(0) is None
    assert late.finished


def test_settings_change_from_the_next_frame_on() -> None:
    segmenter = SlowSegmenter()
    with make(Opener(camera()), segmenter) as engine:
        until(lambda: segmenter.seen)
        assert segmenter.seen[0][1:] == (20, 320)
        engine.configure(max_detections=7, short_side=256)
        until(lambda: segmenter.seen[-1][1:] == (7, 256))
        with pytest.raises(InputError, match="max_detections is 0"):
            engine.configure(short_side=320, max_detections=0)
        assert engine.status()["settings"]["short_side"] == 256
        assert engine.configure(max_fps=None)["max_fps"] is None


@pytest.mark.parametrize("live", [True, False])
def test_max_fps(live: bool) -> None:
    opener = Opener(lambda: FakeSource(live=live, every=0.001))
    with make(opener, max_fps=20.0) as engine:
        results = engine.subscribe(100)
        until(lambda: engine.status()["frames"] >= 1)
        time.sleep(0.5)
        frames = engine.status()["frames"]
        assert 3 <= frames <= 12
        engine.configure(max_fps=None)
        until(lambda: engine.status()["frames"] > frames + 20)
        first = results.get(1)
        assert first is not None
        assert first.latency_ms < 1000


def test_a_slow_pace_can_be_left_at_once() -> None:
    with make(Opener(camera()), max_fps=0.01) as engine:  # 100 s, longer than `until` waits
        until(lambda: engine.status()["frames"] == 1)
        engine.configure(max_fps=None)
        until(lambda: engine.status()["frames"] > 5)
        engine.configure(max_fps=0.01)
        start = time.monotonic()
    assert time.monotonic() - start < 1


def test_what_feeds_a_watchdog() -> None:
    with make(Opener(camera())) as engine:
        before = engine.progress
        until(lambda: engine.progress > before + 3)
    with make(Opener(CameraMissing("not plugged in"))) as engine:
        before = engine.progress
        until(lambda: engine.progress > before + 3)
        assert not engine.processing()
    silent = Opener(camera(SourceTimeout("silent")), camera(60.0))
    with make(silent, read_timeout=0.02) as engine:
        until(lambda: len(silent.sources) > 4)
        assert engine.progress == 0


def test_processing_knows_how_slow_is_allowed() -> None:
    with make(Opener(camera()), max_fps=5.0) as engine:
        until(lambda: engine.status()["frames"] >= 1)
        time.sleep(0.1)
        assert engine.processing(within=0.05)  # five a second are what was asked for
        engine.configure(max_fps=None)
        until(lambda: engine.processing(within=1.0))


def test_status_and_summary_are_json() -> None:
    engine = make(Opener(camera()))
    json.dumps(engine.status(), allow_nan=False)
    results = engine.subscribe()
    with engine:
        result = results.get(60)
        assert result is not None
        status = json.loads(json.dumps(engine.status(), allow_nan=False))
    assert status["model"]["name"] == "fake"
    assert status["board"] == "Raspberry Pi 4 Model B Rev 1.5"
    assert status["limits"]["short_side"]["step"] == 32
    shown = json.loads(json.dumps(summary(result), allow_nan=False))
    assert shown["size"] == [48, 64]
    (person,) = shown["instances"]
    assert person == {
        "class_id": 1,
        "class_name": "person",
        "score": 0.9,
        "track_id": None,
        "box": [10, 5, 40, 25],
        "area": 600,
        "centroid": [25, 15],
    }


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(InputError, match="camera:0"):
        Engine("", SlowSegmenter())


def test_keypoints_are_in_the_summary_of_models_that_have_them() -> None:
    class Posing(SlowSegmenter):
        def __call__(self, rgb: Any) -> Any:
            found = super().__call__(rgb)
            found.keypoints = np.tile(np.float32([10.26, 20.5, 0.75]), (1, 17, 1))
            return found

    engine = make(files(1), Posing())
    results = engine.subscribe()
    with engine:
        (result,) = results
    (person,) = json.loads(json.dumps(summary(result)))["instances"]
    assert person["keypoints"] == [[10.3, 20.5, 0.75]] * 17


def test_passwords_are_not_shown() -> None:
    engine = Engine("rtsp://me:secret@camera.lan/1", SlowSegmenter(), board=FakeBoard())
    assert engine.status()["source"]["name"] == "rtsp://me:***@camera.lan/1"
