"""Fixtures that the tests share. What they are made of is in synthetic.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from synthetic import FakeSegmenter, Scene, draw_scene, write_pack


@pytest.fixture
def scene() -> Scene:
    """A drawn scene of 64x48 pixels with two instances."""
    return draw_scene()


@pytest.fixture
def small_pack(tmp_path: Path) -> Path:
    """The path of a valid pack of a few kilobytes."""
    return write_pack(tmp_path / "small.zip")


@pytest.fixture
def fake_segmenter(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeSegmenter]:
    """Make the command line use a FakeSegmenter, and return its class."""
    pack = SimpleNamespace(
        name="fake",
        version="1",
        sha256="0" * 64,
        class_ids=(1,),
        class_names={1: "person"},
        keypoint=None,
    )

    def make(options: Any, score_threshold: float, max_detections: int) -> FakeSegmenter:
        return FakeSegmenter(pack, score_threshold, max_detections)

    monkeypatch.setattr("edgemask.cli.common.make_segmenter", make)
    return lambda **options: FakeSegmenter(pack, **options)
