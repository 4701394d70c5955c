"""``edgemask predict`` on several photographs at the same time."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from pathlib import Path

import pytest
from cli_runs import files, run
from PIL import Image
from synthetic import draw_scene

from edgemask.cli import common
from edgemask.images import load_image

pytestmark = pytest.mark.usefixtures("fake_segmenter")


class Loading:
    """In place of load_image: knows how many photographs are at work, and delays even ones."""

    def __init__(self) -> None:
        self.lock, self.inside, self.most = threading.Lock(), 0, 0

    def __call__(self, path: str):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.05 if int(Path(path).stem) % 2 == 0 else 0.02)
        with self.lock:
            self.inside -= 1
        return load_image(path)


@pytest.fixture
def loading(monkeypatch):
    made = Loading()
    monkeypatch.setattr("edgemask.images.load_image", made)
    return made


@pytest.fixture
def folder(tmp_path):
    for n in range(6):
        draw_scene(seed=n).save(tmp_path / "photos" / f"{n}.png")
    return tmp_path / "photos"


def predict(capsys, folder, out, threads, *options):
    return run(capsys, "predict", folder, "--out", out, "--threads", threads, *options)


def test_results_are_those_of_one_at_a_time(capsys, folder, out, tmp_path):
    formats = ("--format", "json,coco,masks,overlay")
    alone = tmp_path / "alone"
    status, text, err = predict(capsys, folder, alone, "1", *formats)
    assert (status, err) == (0, "")
    expected = {name: (alone / name).read_bytes() for name in files(alone)}
    status, parallel_text, err = predict(capsys, folder, out, "2", *formats)
    assert (status, err) == (0, "")
    assert {name: (out / name).read_bytes() for name in files(out)} == expected
    assert len(expected) == 3 * 6 + 1
    lines = parallel_text.replace(str(out), str(alone)).splitlines()
    assert lines[:6] == text.splitlines()[:6]


@pytest.mark.parametrize(("threads", "most"), [("1", 1), ("2", 2), ("8", 2)])
def test_two_photographs_share_the_threads(capsys, folder, out, loading, threads, most):
    status, text, _ = predict(capsys, folder, out, threads)
    assert status == 0
    assert loading.most == most
    assert [Path(line.partition(":")[0]).stem for line in text.splitlines()] == list("012345")


@pytest.mark.parametrize(
    ("sources", "threads"),
    [
        (["photos/0.png"], [8]),
        (["photos"], [4, 4]),
        (["synthetic:?frames=2"], [8, 4, 4]),  # what it is shows when it is opened
        (["photos", "synthetic:?frames=2&live=1"], [4, 4, 8]),
    ],
)
def test_what_comes_alone_has_all_threads(capsys, monkeypatch, folder, out, sources, threads):
    made = []
    make = common.make_segmenter

    def note(options, *more):
        made.append(options.threads)
        return make(options, *more)

    monkeypatch.setattr("edgemask.cli.common.make_segmenter", note)
    monkeypatch.chdir(folder.parent)
    status, _, err = run(capsys, "predict", *sources, "--out", out, "--threads", "8")
    assert (status, err) == (0, "")
    assert made == threads


def test_coco_entries_are_in_the_order_of_the_photographs(capsys, folder, out, loading):
    predict(capsys, folder, out, "2", "--format", "coco")
    ids = [entry["image_id"] for entry in json.loads((out / "coco.json").read_text())]
    assert ids == sorted(ids)
    assert set(ids) == set(range(6))


def test_large_photographs_wait_for_each_other(capsys, folder, out, loading, monkeypatch):
    monkeypatch.setattr("edgemask.cli.predict._LARGE", 48 * 64 / 1e6 - 1e-6)
    status, _, _ = predict(capsys, folder, out, "2")
    assert status == 0
    assert loading.most == 1


def test_a_photograph_that_fails_is_named_in_its_place(capsys, folder, out):
    (folder / "2.png").write_bytes(b"no picture")
    status, text, err = predict(capsys, folder, out, "2")
    assert status == 1
    assert err.count("edgemask: error: ") == 1
    assert "2.png" in err
    assert [Path(line.partition(":")[0]).stem for line in text.splitlines()] == list("01345")


def test_a_full_disk_is_said_once(capsys, folder, out, monkeypatch):
    def full(self, stream, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    status, _, err = predict(capsys, folder, out, "2")
    assert status == 1
    assert err.count("edgemask: error: ") == 1
    assert "0.overlay.png" in err
    assert files(out) == []
