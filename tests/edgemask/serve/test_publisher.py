"""What is made of the results, and for whom."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from live_fakes import FakeBoard, FakeSource, Opener, SlowSegmenter, frame, until
from PIL import Image
from synthetic import make_instances

from edgemask.instances import Instances
from edgemask.live.engine import Engine
from edgemask.live.governor import GovernorState
from edgemask.live.result import Result
from edgemask.overlay import PALETTE
from edgemask.serve import publisher as module
from edgemask.serve.broadcast import Broadcast
from edgemask.serve.publisher import MAX_SIDE, Publisher, event, jpeg
from edgemask.sources.base import Frame


def result(height: int, width: int, count: int = 1) -> Result:
    masks = np.zeros((count, height, width), bool)
    for n in range(count):
        left = n * width // count
        masks[n, height // 4 : height * 3 // 4, left + 2 : left + width // count - 2] = True
    instances = make_instances(masks)
    return Result(frame(0, height, width), instances, {}, 1.0, 5.0, GovernorState(), 0)  # type: ignore[arg-type]


@pytest.fixture(params=[1, 2], ids=["one at a time", "two at a time"])
def running(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, Publisher]]:
    segmenters = [SlowSegmenter() for _ in range(request.param)]
    engine = Engine(Opener(FakeSource), segmenters, board=FakeBoard())
    publisher = Publisher(engine)
    with engine:
        publisher.start()
        yield engine, publisher
        assert publisher.stop()


def decoded(picture: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image


def test_a_picture_shows_the_instances() -> None:
    plain = result(48, 64)
    image = decoded(jpeg(plain.frame, plain.instances))
    assert (image.format, image.size) == ("JPEG", (64, 48))
    assert np.abs(np.asarray(image)[24, 32].astype(int) - plain.frame.rgb[24, 32]).max() > 40
    assert plain.frame.rgb.max() == 0  # which others may still read


def test_a_picture_shows_keypoints_where_the_model_has_them() -> None:
    bare, posed = result(240, 320), result(240, 320)
    where = np.array([[60 + 12 * n, 70 + 6 * n, 0.9] for n in range(17)], np.float32)
    posed.instances.keypoints = where[None]
    difference = np.abs(
        np.asarray(decoded(jpeg(posed.frame, posed.instances))).astype(int)
        - np.asarray(decoded(jpeg(bare.frame, bare.instances)))
    ).max(axis=2)
    for x, y, _ in where:
        assert difference[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4].max() > 60


def test_large_pictures_are_made_smaller() -> None:
    large = result(1080, 1920)
    assert decoded(jpeg(large.frame, large.instances)).size == (MAX_SIDE, MAX_SIDE * 9 // 16)


def test_colours_of_the_list_are_those_of_the_picture() -> None:
    found = result(120, 700, 7)
    listed = [i["color"] for i in json.loads(event(found))["instances"]]
    picture = np.asarray(decoded(jpeg(found.frame, found.instances))).astype(int)
    for n, colour in enumerate(listed):
        wanted = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])
        shown = picture[85, n * 100 + 50] / 0.45  # the mask's opacity, over black
        nearest = min(range(7), key=lambda k: np.abs(np.array(PALETTE[k]) - shown).sum())
        assert PALETTE[nearest] == tuple(wanted)


def test_colours_follow_tracks_and_are_left_out_where_they_depend_on_the_place() -> None:
    found = result(120, 900, 9)
    assert [i["color"] for i in json.loads(event(found))["instances"]][7:] == [None, None]
    found.instances.track_ids[:] = 8
    colours = {i["color"] for i in json.loads(event(found))["instances"]}
    assert colours == {"#{:02x}{:02x}{:02x}".format(*PALETTE[1])}


def test_nothing_is_encoded_while_nobody_reads(running: tuple[Engine, Publisher]) -> None:
    engine, publisher = running
    until(lambda: engine.status()["frames"] > 10)
    assert publisher.pictures.number == publisher.events.number == 0


@pytest.mark.filterwarnings("ignore:a frame is not shown")
def test_a_frame_that_cannot_be_shown_does_not_end_the_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = [MemoryError(), ValueError("out of range")]

    def failing(frame: Frame, instances: Instances) -> bytes:
        if failures:
            raise failures.pop()
        return jpeg(frame, instances)

    monkeypatch.setattr(module, "jpeg", failing)
    engine = Engine(Opener(FakeSource), SlowSegmenter(), board=FakeBoard())
    publisher = Publisher(engine)
    with engine:
        publisher.start()
        with publisher.pictures.reading():
            until(lambda: publisher.pictures.number > 2)
        assert not failures
        assert publisher.stop()


def test_each_frame_is_encoded_once_for_all(
    running: tuple[Engine, Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, publisher = running
    calls: list[int] = []

    def counting(frame: Frame, instances: Instances) -> bytes:
        calls.append(frame.index)
        return jpeg(frame, instances)

    monkeypatch.setattr(module, "jpeg", counting)

    def read() -> None:
        with publisher.pictures.reading():
            number = 0
            for _ in range(5):
                got = publisher.pictures.wait(number, 5)
                assert got
                number = got[0]

    readers = [threading.Thread(target=read) for _ in range(20)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(10)
    assert len(calls) == len(set(calls)) <= engine.status()["frames"]
    assert calls == sorted(calls)


def test_a_late_reader_gets_the_last_frame_of_a_source_that_has_ended() -> None:
    opener = Opener(lambda: FakeSource(live=False, frames=3))
    engine = Engine(opener, SlowSegmenter(), board=FakeBoard())
    publisher = Publisher(engine)
    with engine:
        publisher.start()
        assert engine.wait(5)
        picture = publisher.picture(3)
        assert picture
        assert np.asarray(decoded(picture))[2, 2, 0] <= 6  # the third frame has a red of 2
        assert publisher.picture(0.1) == picture
        publisher.stop()


def test_no_picture_before_the_first_frame() -> None:
    engine = Engine(Opener(lambda: FakeSource([60.0])), SlowSegmenter(), board=FakeBoard())
    publisher = Publisher(engine)
    with engine:
        publisher.start()
        assert publisher.picture(0.1) is None
        publisher.stop()


def test_broadcast() -> None:
    news = Broadcast()
    assert news.wait(0, 0) is None
    news.publish(b"one")
    news.publish(b"two")
    assert news.wait(0, 0) == (2, b"two")
    assert news.wait(2, 0.01) is None
    with news.reading():
        assert news.readers == 1
    assert news.readers == 0
    news.close()
    assert news.wait(0, 5) is None
