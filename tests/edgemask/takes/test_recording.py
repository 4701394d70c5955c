"""Films whose frames keep the times they were taken at, whatever ends the recording."""

from __future__ import annotations

import contextlib
import csv
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemask.errors import InputError, OutputError, SourceError
from edgemask.sources import open_source
from edgemask.sources.base import Frame
from edgemask.sources.synthetic import Synthetic
from edgemask.takes.recording import Recording
from edgemask.takes.times import TimesWriter, timed, times_path

av = pytest.importorskip("av")


def frames(count: int, skip: int = 1) -> list[Frame]:
    """Every `skip`-th frame of a drawn scene, as a busy camera would give them."""
    return list(Synthetic(people=1, size=(64, 48), fps=10, frames=count * skip))[::skip]


def record(path: Path, given: list[Frame]) -> Path:
    with Recording(path) as recording:
        for frame in given:
            recording.add(frame, frame.sensor_ns or 0)
    return path


def test_times_come_back_exactly(tmp_path: Path) -> None:
    given = frames(7, skip=3)
    film = record(tmp_path / "deep" / "take.mp4", given)
    with open_source(film) as source:
        found = list(timed(source, times_path(film)))
    assert [f.index for f in found] == [0, 3, 6, 9, 12, 15, 18]
    for frame, original in zip(found, given, strict=True):
        assert (frame.sensor_ns, frame.wall_ns) == (original.sensor_ns, original.wall_ns)
        assert frame.name == f"take-{original.index:06d}"
        assert np.abs(frame.rgb.astype(int) - original.rgb).mean() < 12  # compressed


def test_without_a_clock_of_the_source_the_film_s_times_count(tmp_path: Path) -> None:
    with contextlib.closing(TimesWriter(tmp_path / "t.csv")) as times:
        times.add(Frame(np.zeros((2, 2, 3), np.uint8), 0, None, 5, "cam-000000"))
    (found,) = timed(frames(1), tmp_path / "t.csv")
    assert (found.sensor_ns, found.wall_ns) == (0, 5)


def test_what_is_recorded_can_be_played_before_the_end(tmp_path: Path) -> None:
    with Recording(tmp_path / "take.mp4") as recording:
        for frame in frames(60):
            recording.add(frame, frame.sensor_ns or 0)
        # As a power cut would leave it.
        for path in (recording.path, times_path(recording.path)):
            shutil.copy(path, path.with_name(path.name.replace("take", "cut")))
    film = tmp_path / "cut.mp4"
    with open_source(film) as source:
        found = list(timed(source, times_path(film)))
    assert 60 - 15 <= len(found) < 60
    assert [f.index for f in found] == list(range(len(found)))


def test_nothing_is_replaced(tmp_path: Path) -> None:
    for name in ("take.mp4", "take.frames.csv"):
        (tmp_path / name).write_bytes(b"precious")
        with pytest.raises(OutputError, match=f"{name} exists already"):
            Recording(tmp_path / "take.mp4")
        assert (tmp_path / name).read_bytes() == b"precious"
        (tmp_path / name).unlink()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = frames(2)
    with Recording(tmp_path / "take.mp4") as recording:
        recording.add(given[0], 0)

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(recording._film, "add", full)
        with pytest.raises(OutputError, match=r"No space left.*free some space") as caught:
            recording.add(given[1], 1)
    assert caught.value.errno == errno.ENOSPC
    assert times_path(recording.path).read_text().count("\n") == 2  # header, first frame


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_times_that_a_full_disk_does_not_take(tmp_path: Path) -> None:
    times = TimesWriter(tmp_path / "t.csv")
    times.close()
    times._stream = open("/dev/full", "w")  # noqa: SIM115
    times._table = csv.writer(times._stream)
    for attempt in (lambda: times.add(frames(1)[0]), times.close):
        with pytest.raises(OutputError, match=r"t\.csv cannot be written .*: free some space"):
            attempt()


def test_the_times_outlast_a_power_cut_as_the_film_does(tmp_path: Path) -> None:
    with Recording(tmp_path / "take.mp4") as recording:
        recording.add(frames(1)[0], 0)
        kept = set(recording._durable._files.values())
    assert kept == {recording.path, times_path(recording.path)}


def test_a_disk_that_refuses_later_ends_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    given = frames(2)
    with Recording(tmp_path / "take.mp4") as recording:
        recording.add(given[0], 0)
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", refuse)
            recording._durable._sync_all()
        with pytest.raises(OutputError, match="Input/output error"):
            recording.add(given[1], 40_000_000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index,sensor_ns,wall_ns\n", "lists fewer frames than the film has"),
        ("index,sensor_ns,wall_ns\n0,0,1\n", "lists fewer frames than the film has"),
        ("index,sensor_ns,wall_ns\n0,x,1\n", "lacks index, sensor_ns, wall_ns of frame 0"),
        ("a,b\n1,2\n", "lacks index"),
        ("index,sensor_ns,wall_ns\n0,0\n", "lacks index"),
        (f"index,sensor_ns,wall_ns\n0,{10**30},1\n", "lacks index"),
        ("index,sensor_ns,wall_ns\n-1,0,1\n", "lacks index"),
        ("index,sensor_ns,wall_ns\n0,0,1\n0,40,2\n", "lists the frame 0 after 0"),
        (f"index,sensor_ns,wall_ns\n{'9' * 200_000},0,1\n", "cannot be read"),
        ("\xff", "cannot be read"),
    ],
)
def test_times_of_another_film(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "take.frames.csv"
    path.write_text(content, "latin-1")
    with pytest.raises(InputError, match=message):
        list(timed(frames(54), path))


@pytest.mark.parametrize("tail", ["", "2,2", "2,200000000,17958435", "\0" * 40, "2,2\0\0\0"])
def test_frames_without_times_after_a_power_cut_are_left_out(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "take.frames.csv"
    path.write_bytes(b"index,sensor_ns,wall_ns\r\n0,0,1\r\n1,1,2\r\n" + tail.encode())
    with pytest.warns(UserWarning, match="ends before the film, .* the last 50 frames are left"):
        found = list(timed(frames(52), path))
    assert [(f.index, f.wall_ns) for f in found] == [(0, 1), (1, 2)]


def test_a_damaged_film_is_not_blamed_on_its_times(tmp_path: Path) -> None:
    def broken():
        yield from frames(1)
        raise SourceError("take.mp4 is damaged")

    path = tmp_path / "take.frames.csv"
    path.write_text("index,sensor_ns,wall_ns\n0,0,1\n1,1,2\n")
    with pytest.raises(SourceError, match=r"take\.mp4 is damaged"):
        list(timed(broken(), path))
