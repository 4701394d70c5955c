"""``edgemask predict`` on photographs: what it writes, what it prints, and how it fails."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from cli_runs import files, one_error, run
from PIL import Image
from synthetic import draw_scene, png_header

from edgemask.cli import results
from edgemask.images import load_image

pytestmark = pytest.mark.usefixtures("fake_segmenter")


def test_overlay_is_the_default(capsys, photo, out):
    status, text, err = run(capsys, "predict", photo, "--out", out)
    assert (status, err) == (0, "")
    assert files(out) == ["photo.overlay.png"]
    assert Image.open(out / "photo.overlay.png").size == (64, 48)
    assert text.startswith(f"{photo}: 2 instances (person 0.99, person 0.")
    assert text.endswith(f" -> {out / 'photo.overlay.png'}\n")


def test_all_formats(capsys, photo, out, scene):
    status, text, err = run(
        capsys, "predict", photo, "--out", out, "--format", "json,masks", "--format", "coco,overlay"
    )
    assert (status, err) == (0, "")
    assert files(out) == ["coco.json", "photo.json", "photo.mask.png", "photo.overlay.png"]
    record = json.loads((out / "photo.json").read_text())
    assert record["file_name"] == photo
    assert record["model"] == {"name": "fake", "version": "1", "sha256": "0" * 64}
    assert record["size"] == [48, 64]
    assert len(record["instances"]) == 2
    ids = np.asarray(Image.open(out / "photo.mask.png"))
    np.testing.assert_array_equal(ids > 0, scene.masks.any(axis=0))
    results = json.loads((out / "coco.json").read_text())
    assert [result["image_id"] for result in results] == [1, 1]
    assert results[0]["file_name"] == photo
    assert "1 of 1 image, 2 instances" in text


def test_overlay_does_not_end_up_in_the_masks(capsys, photo, out, scene):
    # The overlay is drawn over the photograph itself, so it has to come last.
    run(capsys, "predict", photo, "--out", out, "--format", "overlay,json")
    first = (out / "photo.json").read_text()
    run(capsys, "predict", photo, "--out", out, "--format", "json,overlay")
    assert (out / "photo.json").read_text() == first


def test_score_and_max_detections(capsys, photo, out):
    assert (
        "1 instance (person 0.99)"
        in run(capsys, "predict", photo, "--out", out, "--score", "0.98")[1]
    )
    assert "1 instance (" in run(capsys, "predict", photo, "--out", out, "--max-detections", "1")[1]


def test_nothing_found_is_a_result(capsys, tmp_path, out):
    Image.new("RGB", (20, 10)).save(tmp_path / "black.png")
    status, text, _ = run(
        capsys, "predict", tmp_path / "black.png", "--out", out, "--format", "json,masks,overlay"
    )
    assert status == 0
    assert "nothing found" in text
    assert json.loads((out / "black.json").read_text())["instances"] == []


def test_one_broken_file_of_a_hundred(capsys, tmp_path, out):
    folder = tmp_path / "photos"
    for n in range(100):
        draw_scene(seed=n, height=24, width=32, count=1).save(folder / f"{n:03d}.png")
    whole = (folder / "042.png").read_bytes()
    (folder / "042.png").write_bytes(whole[: len(whole) // 2])
    status, text, err = run(capsys, "predict", folder, "--out", out, "--format", "json,coco")
    assert status == 1
    one_error(err, "042.png", "damaged or incomplete")
    assert len(files(out)) == 99 + 1
    assert "042.json" not in files(out)
    assert "99 of 100 images" in text
    results = json.loads((out / "coco.json").read_text())
    # Images that are named by numbers keep those as ids.
    assert {result["image_id"] for result in results} == set(range(100)) - {42}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.png", ["none.png", "does not exist"]),
        ("empty", ["has no images"]),
        ("text.jpg", ["text.jpg", "is not an image"]),
        ("*.tiff", ["no file matches"]),
        ("huge.png", ["100 megapixels"]),
    ],
)
def test_bad_source_beside_a_good_one(capsys, tmp_path, photo, out, name, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("text")
    (tmp_path / "huge.png").write_bytes(png_header(20_000, 20_000))
    status, text, err = run(capsys, "predict", tmp_path / name, photo, "--out", out)
    assert status == 1
    one_error(err, *words)
    assert files(out) == ["photo.overlay.png"]
    assert text.startswith(f"{photo}: 2 instances")


def test_only_bad_sources(capsys, tmp_path, out):
    status, text, err = run(capsys, "predict", tmp_path / "a", tmp_path / "b", "--out", out)
    assert (status, text) == (1, "")
    assert err.count("edgemask: error: ") == 2
    assert not out.exists()


def test_image_that_does_not_fit_into_memory(capsys, monkeypatch, tmp_path, photo, out, scene):
    other = str(scene.save(tmp_path / "other.png"))

    def fail(path):
        if path == photo:
            raise MemoryError
        return load_image(path)

    monkeypatch.setattr("edgemask.images.load_image", fail)
    status, _, err = run(capsys, "predict", photo, other, "--out", out)
    assert status == 1
    one_error(err, photo, "not enough memory")
    assert files(out) == ["other.overlay.png"]


def test_same_stems(capsys, tmp_path, out, scene):
    sources = [
        scene.save(tmp_path / name) for name in ("a/photo.png", "a/photo.bmp", "b/photo.png")
    ]
    status, _, _ = run(capsys, "predict", *sources, "--out", out, "--format", "json")
    assert status == 0
    assert files(out) == ["photo-2.json", "photo-3.json", "photo.json"]
    named = [json.loads((out / name).read_text())["file_name"] for name in files(out)]
    assert sorted(named) == sorted(map(str, sources))


def test_no_input_is_replaced(capsys, tmp_path, scene):
    folder = tmp_path / "photos"
    scene.save(folder / "a.png")
    before = scene.save(folder / "a.overlay.png").read_bytes()
    status, _, err = run(capsys, "predict", folder, "--out", folder)
    assert status == 1
    one_error(err, "is one of the inputs")
    assert (folder / "a.overlay.png").read_bytes() == before
    assert files(folder) == ["a.overlay.overlay.png", "a.overlay.png", "a.png"]


def test_stdin(capsys, monkeypatch, photo, out):
    stream = io.BytesIO(Path(photo).read_bytes())
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=stream))
    status, text, _ = run(capsys, "predict", "-", "--out", out)
    assert status == 0
    assert text.startswith("-: 2 instances")
    assert files(out) == ["stdin.overlay.png"]


def test_empty_stdin(capsys, monkeypatch, out):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO()))
    status, _, err = run(capsys, "predict", "-", "--out", out)
    assert status == 1
    one_error(err, "0 bytes")


def test_output_folder_that_is_a_file(capsys, photo, out):
    out.write_text("a file")
    status, _, err = run(capsys, "predict", photo, "--out", out)
    assert status == 1
    one_error(err, str(out), "a file is in the way")


def test_full_disk_stops_the_run(capsys, monkeypatch, tmp_path, out):
    folder = tmp_path / "photos"
    for n in range(5):
        draw_scene(seed=n).save(folder / f"{n}.png")

    def full(self, stream, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        status, _, err = run(capsys, "predict", folder, "--out", out)
    assert status == 1
    one_error(err, "0.overlay.png", "No space left on device", "free some space")
    assert files(out) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_does_not_take_the_results_of_the_run(capsys, monkeypatch, photo, out):
    def full(**_):
        return open("/dev/full", "w+b")

    monkeypatch.setattr(results.tempfile, "TemporaryFile", full)
    status, _, err = run(capsys, "predict", photo, "--out", out, "--format", "coco")
    assert status == 1
    one_error(err, "coco.json cannot be written", "No space left on device", "free some space")


def test_interrupt_keeps_what_was_found(capsys, monkeypatch, tmp_path, out):
    folder = tmp_path / "photos"
    for n in range(5):
        draw_scene(seed=n).save(folder / f"{n}.png")

    def fail(path):
        if path.endswith("3.png"):
            raise KeyboardInterrupt
        return load_image(path)

    monkeypatch.setattr("edgemask.images.load_image", fail)
    status, _, err = run(capsys, "predict", folder, "--out", out, "--format", "coco")
    assert status == 130
    one_error(err, "interrupted")
    results = json.loads((out / "coco.json").read_text())
    assert {result["image_id"] for result in results} == {0, 1, 2}
