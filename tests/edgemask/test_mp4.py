"""Every frame that was added is in the film."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from edgemask import mp4
from edgemask.mp4 import Mp4
from edgemask.sources import open_source

av = pytest.importorskip("av")


def film_of(times_ns: Sequence[int | None]) -> list[float]:
    """Times in seconds of the frames in a film of frames at these times."""
    buffer = io.BytesIO()
    film = Mp4(buffer, 48, 64, Fraction(25))
    for number, time_ns in enumerate(times_ns):
        film.add(np.full((48, 64, 3), 20 * number, np.uint8), time_ns)
    film.close()
    buffer.seek(0)
    with av.open(buffer) as read:
        return [frame.time for frame in read.decode(video=0)]


def test_frames_without_a_time_come_at_the_rate_of_the_film() -> None:
    assert film_of([None] * 4) == [0, 0.04, 0.08, 0.12]
    assert film_of([0, 100_000_000, None]) == [0, 0.1, 0.14]


def test_frames_of_the_same_time() -> None:
    assert len(film_of([0, 0, 40_000_000, 20_000_000])) == 4


@pytest.mark.skipif("libx264" not in av.codecs_available, reason="x264 alone looks ahead")
def test_frames_that_the_encoder_has_kept_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp4, "_H264_OPTIONS", {"preset": "medium"})
    assert film_of([n * 500_000_000 for n in range(5)]) == [0, 0.5, 1, 1.5, 2]


@pytest.mark.parametrize("name", ["2026-01-01T12:30:00.mp4", "pipe:1.mp4", "./12:30.mp4"])
def test_films_whose_name_has_a_colon(tmp_path, monkeypatch, capfd, name) -> None:
    monkeypatch.chdir(tmp_path)
    film = Mp4(name, 48, 64, Fraction(25))
    for level in (0, 80, 160):
        film.add(np.full((48, 64, 3), level, np.uint8))
    film.close()
    assert (tmp_path / name).stat().st_size > 0
    with open_source(name) as source:
        assert len(list(source)) == 3
        assert source.name == name
    assert capfd.readouterr().out == ""
