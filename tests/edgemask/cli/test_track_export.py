"""``edgemask track`` and ``edgemask export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_picamera2
import numpy as np
import pytest
from PIL import Image
from synthetic import COLOURS, make_instances

from edgemask.cli import common, main
from edgemask.instances import Instances
from edgemask.mp4 import Mp4
from edgemask.sources.files import ImageFiles
from edgemask.takes.reader import read_take

pytestmark = pytest.mark.usefixtures("fake_segmenter")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def walk(here: Path) -> Path:
    """Two squares that walk towards each other, in six frames."""
    folder = here / "walk"
    folder.mkdir()
    for n in range(6):
        rgb = np.zeros((48, 64, 3), np.uint8)
        rgb[8:28, 4 + 3 * n : 14 + 3 * n] = COLOURS[0]
        rgb[20:40, 50 - 3 * n : 60 - 3 * n] = COLOURS[1]
        Image.fromarray(rgb).save(folder / f"{n:03d}.png")
    return folder


class Bright:
    """Finds what is white, whatever the compression of a film has made of it."""

    def __init__(self, pack: Any) -> None:
        self.pack = pack

    def __call__(self, rgb: np.ndarray) -> Instances:
        mask = rgb.min(axis=2) > 128
        return make_instances(mask[None]) if mask.any() else Instances.empty(*mask.shape)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_a_folder_of_frames(capsys, walk: Path) -> None:
    status, out, err = run(capsys, "track", walk, "--model", "people")
    assert (status, err) == (0, "")
    assert out.startswith(f"{walk}: 6 frames, 2 tracks -> walk.jsonl (")
    records = list(read_take("walk.jsonl"))
    assert [record.index for record in records] == list(range(6))
    for n, record in enumerate(records):
        left = {item["track_id"]: item["box"][0] for item in record.instances}
        assert sorted(left) == [1, 2]
        assert sorted(left.values()) == sorted([4 + 3 * n, 50 - 3 * n])
    first = {item["box"][1]: item["track_id"] for item in records[0].instances}
    last = {item["box"][1]: item["track_id"] for item in records[-1].instances}
    assert first == last
    assert json.loads(Path("walk.jsonl").read_text().splitlines()[0])["model"]["name"] == "fake"


def test_the_folder_one_is_in(capsys, walk: Path, monkeypatch) -> None:
    monkeypatch.chdir(walk)
    assert run(capsys, "track", ".", "--out", "../here.jsonl")[0] == 0
    assert len(list(read_take("../here.jsonl"))) == 6


def test_an_older_take_stays(capsys, walk: Path) -> None:
    for name in ("walk.jsonl", "walk-2.jsonl", "walk-3.jsonl"):
        assert run(capsys, "track", walk, "--frames", 2)[1].split(" -> ")[1].startswith(f"{name} (")
    assert len(list(read_take("walk-3.jsonl"))) == 2
    Path("old.mp4").touch()
    for option, name in (("--out", "walk.jsonl"), ("--overlay", "old.mp4")):
        status, _, err = run(capsys, "track", walk, option, name)
        assert (status, err) == (
            1, f"edgemask: error: {name} exists already: choose another name\n")  # fmt: skip
    assert len(list(read_take("walk.jsonl"))) == 2


def test_a_camera_says_who_is_seen(capsys, monkeypatch, here: Path) -> None:
    fake_picamera2.install(monkeypatch)
    status, out, _ = run(
        capsys, "track", "camera:0?size=64x48", "--frames", 3, "--out", "a/b.jsonl"
    )
    assert status == 0
    assert out.count("camera-") == 3
    assert len(list(read_take("a/b.jsonl"))) == 3


def test_a_broken_picture_is_left_out(capsys, walk: Path) -> None:
    for broken in ("000.png", "002.png"):
        (walk / broken).write_bytes((walk / broken).read_bytes()[:60])
    status, out, err = run(capsys, "track", walk)
    assert status == 1
    assert ": 4 frames, 2 tracks -> walk.jsonl" in out
    assert err.count("edgemask: error: ") == 2
    assert [Path(r.source).name for r in read_take("walk.jsonl")] == [
        "001.png", "003.png", "004.png", "005.png"]  # fmt: skip


def test_tracks_of_a_folder_do_not_depend_on_the_speed_of_the_machine(
    capsys, monkeypatch, here: Path
) -> None:
    (here / "seq").mkdir()
    for n in range(12):
        rgb = np.zeros((48, 64, 3), np.uint8)
        if not 3 <= n < 9:
            rgb[8:40, 20:40] = 255
        Image.fromarray(rgb).save(here / "seq" / f"{n:03d}.png")
    make = common.make_segmenter
    monkeypatch.setattr(common, "make_segmenter", lambda *args: Bright(make(*args).pack))
    now = iter(range(0, 10**15, 10**12))  # a very slow one
    monkeypatch.setattr("time.monotonic_ns", lambda: next(now))
    assert "12 frames, 1 track " in run(capsys, "track", "seq", "--max-lost", 0.5)[1]
    out = run(capsys, "track", "seq", "--max-lost", 0.1, "--out", "b.jsonl")[1]
    assert "12 frames, 2 tracks " in out


def test_a_film_of_tracks_begins_at_once(capsys, here: Path) -> None:
    av = pytest.importorskip("av")
    scene = "synthetic:?size=64x48&fps=10&frames=20"
    run(capsys, "record", scene, "--out", "f.mp4")
    table = here / "f.frames.csv"
    header, *rows = table.read_text().splitlines()
    hours = 3 * 3600 * 10**9  # the camera's clock counts from when the board was started
    fields = [row.split(",") for row in rows]
    later = [f"{index},{int(sensor) + hours},{wall}" for index, sensor, wall in fields]
    table.write_text("\n".join([header, *later]) + "\n")
    assert run(capsys, "track", "f.mp4", "--overlay", "tracks.mp4")[0] == 0
    with av.open("tracks.mp4") as film:
        assert 1.5 < film.duration / 1e6 < 2.5
        assert next(film.decode(video=0)).pts == 0


def test_ctrl_c_ends_a_take_and_keeps_it(capsys, monkeypatch, walk: Path) -> None:
    read = ImageFiles.read

    def interrupted(self, timeout: float = 5.0):
        frame = read(self, timeout)
        if frame is not None and frame.index == 4:
            raise KeyboardInterrupt
        return frame

    monkeypatch.setattr(ImageFiles, "read", interrupted)
    status, out, _ = run(capsys, "track", walk)
    assert status == 130
    assert ": 4 frames, 2 tracks -> walk.jsonl" in out
    assert len(list(read_take("walk.jsonl"))) == 4


def test_lost_for_longer_than_allowed(capsys, monkeypatch, here: Path) -> None:
    """Somebody who is out of sight for two frames of a second each."""
    pytest.importorskip("av")
    film = Mp4("gap.mp4", 48, 64)
    for n in range(8):
        rgb = np.zeros((48, 64, 3), np.uint8)
        if n not in (3, 4):
            rgb[8:40, 20:40] = 255
        film.add(rgb, n * 1_000_000_000)
    film.close()
    make = common.make_segmenter
    monkeypatch.setattr(common, "make_segmenter", lambda *args: Bright(make(*args).pack))
    assert "8 frames, 1 track " in run(capsys, "track", "gap.mp4", "--max-lost", 5)[1]
    assert "8 frames, 2 tracks" in run(capsys, "track", "gap.mp4", "--max-lost", 1)[1]


def test_overlay(capsys, walk: Path) -> None:
    av = pytest.importorskip("av")
    status, out, _ = run(capsys, "track", walk, "--overlay", "film.mp4")
    assert (status, " -> walk.jsonl, film.mp4 (" in out) == (0, True)
    with av.open("film.mp4") as film:
        assert sum(1 for _ in film.decode(video=0)) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mp4"], "'none.mp4' does not exist"),
        (["walk", "--overlay", "tracks.avi"], "'tracks.avi' does not end in .mp4"),
        (["walk", "--out", "a.mp4", "--overlay", "./a.mp4"], "a.mp4 is the name of both take and"),
        (["walk", "--max-lost", "-1"], "'-1' is not a number of seconds from 0 to 3600"),
        (["walk", "--max-lost", "nan"], "'nan' is not a number of seconds from 0 to 3600"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(capsys, walk: Path, arguments, message: str) -> None:
    status, _, err = run(capsys, "track", *arguments)
    assert status == 1
    assert err.count("\n") == 1
    assert message in err
    assert [path.name for path in Path().iterdir()] == ["walk"]


# ---- export


@pytest.mark.parametrize(
    ("form", "name", "said"),
    [
        ("csv", "walk.csv", "walk.jsonl -> walk.csv"),
        ("coco", "walk.coco.json", "walk.jsonl -> walk.coco.json"),
        ("silhouettes", "walk_silhouettes", "12 files -> walk_silhouettes"),
    ],
)
def test_export(capsys, walk: Path, form: str, name: str, said: str) -> None:
    run(capsys, "track", walk)
    assert run(capsys, "export", "walk.jsonl", "--to", form) == (0, f"{said}\n", "")
    assert Path(name).exists()


def test_export_of_a_single_file(capsys, walk: Path, monkeypatch) -> None:
    make = common.make_segmenter
    monkeypatch.setattr(common, "make_segmenter", lambda *args: Bright(make(*args).pack))
    Image.new("RGB", (64, 48), "white").save("a.png")
    run(capsys, "track", "a.png")
    said = run(capsys, "export", "a.jsonl", "--to", "silhouettes")
    assert said == (0, "1 file -> a_silhouettes\n", "")


def test_export_elsewhere(capsys, walk: Path) -> None:
    run(capsys, "track", walk)
    assert run(capsys, "export", "walk.jsonl", "--to", "csv", "--out", "a/b.csv")[0] == 0
    assert Path("a/b.csv").read_text().count("\n") == 13


def test_a_power_cut_is_reported_once(capsys, walk: Path) -> None:
    run(capsys, "track", walk)
    take = Path("walk.jsonl")
    take.write_bytes(take.read_bytes()[:-20])
    status, _, err = run(capsys, "export", take, "--to", "coco")
    assert status == 0
    assert err == "edgemask: warning: walk.jsonl: the last line is not complete and is left out\n"


def test_files_of_two_takes_are_not_mixed(capsys, walk: Path) -> None:
    run(capsys, "track", walk)
    run(capsys, "export", "walk.jsonl", "--to", "silhouettes")
    status, _, err = run(capsys, "export", "walk.jsonl", "--to", "silhouettes")
    assert status == 1
    assert err == "edgemask: error: walk_silhouettes is not empty: choose another folder\n"


def test_the_take_is_not_overwritten(capsys, walk: Path) -> None:
    run(capsys, "track", walk)
    before = Path("walk.jsonl").read_bytes()
    status, _, err = run(capsys, "export", "walk.jsonl", "--to", "csv", "--out", "walk.jsonl")
    assert (status, "is the take itself" in err) == (1, True)
    assert Path("walk.jsonl").read_bytes() == before


def test_openpose_without_keypoints(capsys, walk: Path) -> None:
    run(capsys, "track", walk)
    status, _, err = run(capsys, "export", "walk.jsonl", "--to", "openpose")
    assert status == 1
    assert "--model people-pose" in err
    assert not Path("walk_json").exists()


def test_no_take(capsys, here: Path) -> None:
    status, _, err = run(capsys, "export", "none.jsonl", "--to", "csv")
    assert status == 1
    assert err == (
        "edgemask: error: none.jsonl cannot be read (No such file or directory): check its name\n"
    )
