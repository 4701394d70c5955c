"""Changing the model of a running engine: between two frames, or not at all."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live_fakes import FakeBoard, FakeSource, Opener, SlowSegmenter, until

import edgemask
from edgemask.errors import CameraMissing, InputError, ModelError
from edgemask.live.engine import Engine
from edgemask.live.models import Models, names_of

PEOPLE = Path(edgemask.__file__).parent / "models" / "people.zip"


def make(
    opener: Callable[[], Any] | None = None,
    segmenter: Any = None,
    makers: dict[str, Callable[[], Any]] | None = None,
    **options: Any,
) -> Engine:
    first = segmenter or SlowSegmenter(name="first")
    return Engine(
        opener or Opener(FakeSource), first, model="first", board=FakeBoard(),
        models={"first": lambda: SlowSegmenter(name="first"),
                "second": lambda: SlowSegmenter(name="second", own_short_side=256),
                **(makers or {})},
        backoff=(0.01, 0.04), **options,
    )  # fmt: skip


def running(engine: Engine) -> str:
    return str(engine.status()["model"]["name"])


def test_the_next_frames_are_another_models() -> None:
    first = SlowSegmenter(name="first")
    engine = make(segmenter=first)
    results = engine.subscribe(1_000_000)
    with engine:
        until(lambda: first.seen)
        model = engine.status()["model"]
        assert (model["choice"], model["loading"], model["error"]) == ("first", None, None)
        assert engine.status()["limits"]["model"] == {"choices": ["first", "second"]}
        assert engine.configure(model="second", score_threshold=0.7)["model"] == "second"
        until(lambda: running(engine) == "second")
        seen, frames = len(first.seen), engine.status()["frames"]
        until(lambda: engine.status()["frames"] > frames + 3)
        assert len(first.seen) == seen
        status = engine.status()
        assert status["settings"]["model"] == status["model"]["choice"] == "second"
        assert status["settings"]["score_threshold"] == 0.7
        assert status["settings"]["short_side"] == status["effective"]["short_side"] == 256
        assert status["errors"] == 0
        json.dumps(status, allow_nan=False)
    found = [r.sequence for r in results]
    assert found == list(range(len(found)))  # no frame was lost or done twice


def test_the_thread_that_segments_loads_it() -> None:
    names: list[str] = []

    def other() -> SlowSegmenter:
        names.append(threading.current_thread().name)
        return SlowSegmenter(name="other")

    with make(makers={"other": other}) as engine:
        engine.configure(model="other")
        until(lambda: running(engine) == "other")
    assert names == ["edgemask-infer"]


@pytest.mark.parametrize("error", [ModelError("it is damaged"), MemoryError(), OSError(5, "io")])
def test_a_model_that_fails_to_load_leaves_the_old_one(error: Exception) -> None:
    def broken() -> Any:
        raise error

    with make(makers={"broken": broken}) as engine:
        until(engine.processing)
        engine.configure(model="broken", max_detections=7)
        message = until(lambda: engine.status()["model"]["error"])
        assert message.startswith("the model broken was not taken, first stays in use: ")
        assert str(error) in message or type(error).__name__ in message
        status = engine.status()
        assert status["settings"]["model"] == status["model"]["choice"] == "first"
        assert status["settings"]["max_detections"] == 7
        frames = status["frames"]
        until(lambda: engine.status()["frames"] > frames + 3)
        engine.configure(model="second")
        until(lambda: running(engine) == "second")
        assert engine.status()["model"]["error"] is None


def test_a_model_that_cannot_segment_this_frame_is_not_taken() -> None:
    def failing() -> Any:
        return SlowSegmenter(name="failing", fail_on=lambda number: True)

    with make(makers={"failing": failing}) as engine:
        until(engine.processing)
        engine.configure(model="failing")
        until(lambda: "the network failed" in (engine.status()["model"]["error"] or ""))
        assert running(engine) == "first"
        assert engine.status()["errors"] == 0


def test_the_last_one_that_was_asked_for_runs() -> None:
    release, loading = threading.Event(), threading.Event()

    def slow() -> Any:
        loading.set()
        release.wait(20)
        return SlowSegmenter(name="slow")

    with make(makers={"slow": slow}) as engine:
        engine.configure(model="slow")
        assert loading.wait(20)
        assert engine.status()["model"]["loading"] == "slow"
        assert running(engine) == "first"
        engine.configure(model="second", score_threshold=0.9)
        release.set()
        until(lambda: running(engine) == "second")
        assert engine.status()["settings"]["score_threshold"] == 0.9


def test_it_needs_no_frame_and_no_pace() -> None:
    with make(Opener(CameraMissing("not plugged in"))) as engine:
        engine.configure(model="second")
        until(lambda: running(engine) == "second")
    with make(max_fps=0.01) as engine:
        until(lambda: engine.status()["frames"] == 1)
        engine.configure(model="second")
        until(lambda: running(engine) == "second")


@pytest.mark.parametrize("name", ["third", str(PEOPLE), "../people", "", None, 3])
def test_only_the_known_ones_can_be_chosen(name: Any) -> None:
    with make() as engine:
        with pytest.raises(InputError, match="give one of first, second"):
            engine.configure(model=name)
        assert engine.status()["settings"]["model"] == "first"


def test_after_the_end_no_model_will_run() -> None:
    with make(Opener(lambda: FakeSource(live=False, frames=2))) as engine:
        assert engine.wait(60)
        with pytest.raises(InputError, match="the source has ended"):
            engine.configure(model="second")
        engine.configure(model="first", score_threshold=0.9)


def test_without_a_choice_there_is_no_such_setting() -> None:
    engine = Engine(Opener(FakeSource), SlowSegmenter(), board=FakeBoard())
    with pytest.raises(InputError, match="'model' cannot be set"):
        engine.configure(model="people")
    assert engine.status()["model"] == {"name": "fake", "version": "1", "sha256": "0" * 64}


def test_the_old_model_is_let_go() -> None:
    segmenter = SlowSegmenter(name="first")
    gone = weakref.ref(segmenter)
    with make(segmenter=segmenter) as engine:
        del segmenter
        until(engine.processing)
        engine.configure(model="second")
        until(lambda: running(engine) == "second")
        until(lambda: gc.collect() >= 0 and gone() is None)


def test_a_name_that_is_not_offered_is_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError, match="'third' is not one of"):
        Models(SlowSegmenter(), {"first": SlowSegmenter}, "third")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("people", "people"),
        ("/home/pi/garden.zip", "garden.zip"),
        ("./people", "people (file)"),
        ("people.zip", "people.zip"),
    ],
)
def test_names_of_models_show_no_folder(given: str, name: str) -> None:
    packs, current = names_of(given, ["people", "people-lite"])
    assert current == name
    assert packs[current] == given
    assert set(packs) == {"people", "people-lite", name}


def test_real_packs(tmp_path: Path) -> None:
    """A copy under another name, and one that is cut off."""
    pytest.importorskip("ai_edge_litert", reason="no TFLite runtime")
    from edgemask.segmenter import Segmenter

    copy, damaged = tmp_path / "copy.zip", tmp_path / "damaged.zip"
    shutil.copy(PEOPLE, copy)
    damaged.write_bytes(PEOPLE.read_bytes()[:100_000])

    def maker(path: Path) -> Callable[[], Any]:
        return lambda: Segmenter(path, threads=1, short_side=160)

    models = {path.stem: maker(path) for path in (PEOPLE, copy, damaged)}
    with Engine(
        "synthetic:?people=2&size=160x120&live=1", models["people"](), models=models,
        model="people", board=FakeBoard(),
    ) as engine:  # fmt: skip
        until(engine.processing, 60)
        engine.configure(model="damaged")
        message = until(lambda: engine.status()["model"]["error"], 60)
        assert "damaged.zip is not a complete zip file" in message
        assert message.count("\n") == 0
        engine.configure(model="copy")
        until(lambda: engine.status()["model"]["choice"] == "copy", 60)
        frames = engine.status()["frames"]
        until(lambda: engine.status()["frames"] > frames + 2, 60)
        assert engine.status()["errors"] == 0
        assert engine.status()["settings"]["short_side"] == 160
