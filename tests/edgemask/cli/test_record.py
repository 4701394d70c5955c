"""``edgemask record``, and what ``edgemask track`` makes of a recording."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from edgemask.cli import main
from edgemask.cli.frames import Frames
from edgemask.errors import SourceError
from edgemask.sources.synthetic import Synthetic
from edgemask.takes.reader import read_take

pytestmark = pytest.mark.usefixtures("fake_segmenter", "here")
av = pytest.importorskip("av")

SCENE = "synthetic:?size=64x48&fps=10&frames=30"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_seconds_by_the_camera_s_clock(capsys) -> None:
    said = f"{SCENE}: 20 frames in 2.0 s -> synthetic.mp4\n"
    assert run(capsys, "record", SCENE, "--seconds", 2) == (0, said, "")
    with av.open("synthetic.mp4") as film:
        assert sum(1 for _ in film.decode(video=0)) == 20
    assert Path("synthetic.frames.csv").read_text().count("\n") == 21


def test_to_the_end_of_a_source(capsys) -> None:
    status, out, _ = run(capsys, "record", SCENE, "--out", "a/b.mp4")
    assert (status, ": 30 frames in 2.9 s -> a/b.mp4" in out) == (0, True)


def test_one_of_each_is_not_called_many(capsys) -> None:
    one = "synthetic:?size=64x48&frames=1&people=1"
    assert ": 1 frame in 0.0 s ->" in run(capsys, "record", one, "--out", "a.mp4")[1]
    assert "a.mp4: 1 frame, " in run(capsys, "predict", "a.mp4", "--out", "b")[1]


def test_a_recording_is_tracked_with_its_own_times(capsys) -> None:
    run(capsys, "record", SCENE, "--seconds", 1)
    lines = Path("synthetic.frames.csv").read_text().splitlines()
    header, rows = lines[0], [f"{5 * n},{n * 10**8 + 7},{n}" for n in range(10)]
    Path("synthetic.frames.csv").write_text("\n".join([header, *rows]) + "\n")
    assert run(capsys, "track", "synthetic.mp4")[0] == 0
    records = list(read_take("synthetic.jsonl"))
    assert [(r.index, r.sensor_ns, r.wall_ns) for r in records] == [
        (5 * n, n * 10**8 + 7, n) for n in range(10)]  # fmt: skip


def test_an_older_recording_stays(capsys) -> None:
    run(capsys, "record", SCENE, "--seconds", 1)
    assert run(capsys, "record", SCENE, "--seconds", 1)[1].endswith("-> synthetic-2.mp4\n")
    for taken in ("synthetic.mp4", "other.frames.csv"):
        Path("other.frames.csv").touch()
        film = taken.replace(".frames.csv", ".mp4")
        status, _, err = run(capsys, "record", SCENE, "--out", film)
        assert (status, err) == (
            1, f"edgemask: error: {taken} exists already: choose another name\n")  # fmt: skip


def test_ctrl_c_ends_a_recording_and_keeps_it(capsys, monkeypatch) -> None:
    read = Synthetic.read

    def interrupted(self, timeout: float = 5.0):
        frame = read(self, timeout)
        if frame is not None and frame.index == 12:
            raise KeyboardInterrupt
        return frame

    monkeypatch.setattr(Synthetic, "read", interrupted)
    status, out, _ = run(capsys, "record", SCENE)
    assert (status, ": 12 frames in 1.1 s" in out) == (130, True)
    with av.open("synthetic.mp4") as film:
        assert sum(1 for _ in film.decode(video=0)) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mp4"], "'none.mp4' does not exist"),
        ([SCENE, "--out", "take.avi"], "'take.avi' does not end in .mp4"),
        ([SCENE, "--seconds", "0"], "not a whole number of at least 1"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(capsys, arguments, message: str) -> None:
    status, _, err = run(capsys, "record", *arguments)
    assert (status, err.count("\n")) == (1, 1)
    assert message in err
    assert not list(Path().glob("*.mp4"))


def test_a_stream_that_stops_is_opened_again(capsys, monkeypatch) -> None:
    opened = []

    def opener(uri: str) -> Synthetic:
        opened.append(uri)
        if len(opened) > 3:
            raise SourceError("nobody answers: check its power")
        source = Synthetic(size=(64, 48), fps=200, frames=4, live=True)
        source.length, source.finite = None, False
        return source

    monkeypatch.setattr("edgemask.sources.open_source", opener)
    monkeypatch.setattr("edgemask.live.reopen.BACKOFF", (0.001, 0.001))
    status, _, err = run(capsys, "record", "http://camera/", "--out", "a.mp4", "--reconnect", 2)
    assert status == 1
    assert len(opened) == 5
    assert err.count("ended: check what sends it (trying again)") == 3
    assert "edgemask: error: nobody answers" in err
    with av.open("a.mp4") as film:
        frames = sum(1 for _ in film.decode(video=0))
    assert 3 <= frames <= 12
    assert Path("a.frames.csv").read_text().count("\n") == frames + 1


def test_without_a_clock_of_the_camera_the_film_s_times_are_kept(capsys) -> None:
    run(capsys, "record", SCENE, "--seconds", 1)
    table = Path("synthetic.frames.csv")
    header, *rows = table.read_text().splitlines()
    blank = [f"{index},,{wall}" for index, _, wall in (row.split(",") for row in rows)]
    table.write_text("\n".join([header, *blank]) + "\n")
    run(capsys, "track", "synthetic.mp4")
    times = [record.sensor_ns for record in read_take("synthetic.jsonl")]
    assert times == pytest.approx([n * 10**8 for n in range(10)], abs=10**5)


def test_a_name_of_which_only_the_times_are_left_is_taken(capsys) -> None:
    run(capsys, "record", SCENE, "--seconds", 1)
    Path("synthetic.mp4").unlink()
    assert run(capsys, "record", SCENE, "--seconds", 1)[1].endswith("-> synthetic-2.mp4\n")


def test_no_source_is_kept_that_has_been_closed(monkeypatch) -> None:
    kept: weakref.WeakSet[Synthetic] = weakref.WeakSet()

    def opener(uri: str) -> Synthetic:
        source = Synthetic(size=(64, 48), fps=1000, frames=2, live=True)
        source.length, source.finite = None, False
        kept.add(source)
        return source

    monkeypatch.setattr("edgemask.sources.open_source", opener)
    monkeypatch.setattr("edgemask.live.reopen.BACKOFF", (0.0, 0.0))
    with Frames("rtsp://cam/live", 10) as frames:
        for _ in range(40):
            next(iter(frames))
        gc.collect()
        assert len(kept) <= 3  # the first, the one that is open, and one more meanwhile
        assert frames.dropped >= 0
