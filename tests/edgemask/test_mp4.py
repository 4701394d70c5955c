"""Every frame that was added is in the film."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest

from edgemask import mp4
from edgemask.mp4 import Mp4

av = pytest.importorskip("av")


def film_of(times_ns: list[int]) -> list[float]:
    """Times in seconds of the frames in a film of frames at these times."""
    buffer = io.BytesIO()
    film = Mp4(buffer, 48, 64, Fraction(25))
    for number, time_ns in enumerate(times_ns):
        film.add(np.full((48, 64, 3), 20 * number, np.uint8), time_ns)
    film.close()
    buffer.seek(0)
    with av.open(buffer) as read:
        return [frame.time for frame in read.decode(video=0)]


def test_frames_of_the_same_time() -> None:
    assert len(film_of([0, 0, 40_000_000, 20_000_000])) == 4


@pytest.mark.skipif("libx264" not in av.codecs_available, reason="x264 alone looks ahead")
def test_frames_that_the_encoder_has_kept_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp4, "_H264_OPTIONS", {"preset": "medium"})
    assert film_of([n * 500_000_000 for n in range(5)]) == [0, 0.5, 1, 1.5, 2]
