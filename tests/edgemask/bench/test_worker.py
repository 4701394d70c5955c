"""One configuration, measured for real; and the process around it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from edgemask.bench import worker
from edgemask.bench.configuration import Configuration
from edgemask.bench.picture import load_picture
from edgemask.bench.runner import run
from edgemask.errors import EdgeMaskError, ModelError, SourceError
from edgemask.live.board import Board, Throttled
from edgemask.live.memory import peak_rss_mb

HOT = Board("Pi", 81.5, Throttled(0x50005), 4 * 10**9, 10**9, 4, "ondemand", 1500.0)


def test_configuration_survives_the_command_line() -> None:
    configuration = Configuration("a b.zip", 2, 256, "ö.jpg", 7, 1.5)
    assert Configuration.from_json(configuration.to_json()) == configuration


def test_bundled_picture() -> None:
    picture = load_picture()
    assert picture.rgb.shape == (480, 640, 3)
    assert picture.decode_ms > 0


def test_own_picture_keeps_its_size(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((33, 44, 3), np.uint8)).save(tmp_path / "p.png")
    picture = load_picture(str(tmp_path / "p.png"))
    assert picture.rgb.shape == (33, 44, 3)
    assert picture.name == "p.png"
    with pytest.raises(SourceError, match="missing"):
        load_picture(str(tmp_path / "missing.png"))


def test_frames() -> None:
    said: list[float] = []
    found = worker.measure(
        Configuration("people", short_side=96, frames=4), said.append, lambda: HOT
    )
    assert said == [0.25, 0.5, 0.75, 1.0]
    assert found["frames"] == 4
    assert found["short_side"] == 96
    assert found["input"] == {"width": 128, "height": 96}
    assert found["image"]["width"] == 640
    assert set(found["partitions"]) == {"backbone", "box_head", "mask_head"}
    names = [stage["name"] for stage in found["stages"]]
    assert names[:3] == ["resize", "backbone", "proposals"]
    assert found["over_time"] == []
    assert 10 < found["peak_rss_mb"] < peak_rss_mb() + 10  # of this whole process
    json.dumps(found, allow_nan=False)


def test_seconds() -> None:
    said: list[float] = []
    found = worker.measure(
        Configuration("people", seconds=0.5, interval=0.1), said.append, lambda: HOT
    )
    rows = found["over_time"]
    assert rows
    assert said == sorted(said)
    assert said[-1] == 1
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)
    assert rows[-1]["temperature_c"] == 81.5
    assert rows[-1]["throttled"] == ["under-voltage", "throttled"]
    # Every frame is in one row.
    assert all(row["frames_per_second"] > 0 for row in rows)


def test_a_board_that_says_nothing() -> None:
    silent = Board(None, None, None, None, None, 1, None, None)
    found = worker.measure(
        Configuration("people", seconds=0.2, interval=0.1), lambda done: None, lambda: silent
    )
    assert found["over_time"][-1]["temperature_c"] is None
    assert found["over_time"][-1]["throttled"] is None


def test_in_a_process_of_its_own() -> None:
    said: list[float] = []
    found = run(Configuration("people", frames=2), said.append)
    assert said == [0.5, 1.0]
    assert found["pack"] == "people"
    assert found["first_result_cpu_s"] > 0


def test_errors_come_back_as_they_were(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing\.zip"):
        run(Configuration(str(tmp_path / "nothing.zip")), lambda done: None)
    with pytest.raises(SourceError, match=r"no\.png"):
        run(Configuration("people", image=str(tmp_path / "no.png")), lambda done: None)


def test_a_process_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemask.bench.runner.sys", SimpleNamespace(executable="false"))
    with pytest.raises(EdgeMaskError, match="status 1"):
        run(Configuration("people"), lambda done: None)
