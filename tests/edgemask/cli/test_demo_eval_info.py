"""``edgemask demo``, ``eval`` and ``info``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_runs import files, one_error, run
from PIL import Image
from synthetic import draw_scene, make_instances

from edgemask.modelpack import bundled_packs
from edgemask.outputs import coco_results

pytestmark = pytest.mark.usefixtures("fake_segmenter")


# ---- demo


def test_demo(capsys, out):
    status, text, err = run(capsys, "demo", "--out", out)
    assert (status, err) == (0, "")
    assert files(out) == ["astronaut.json", "astronaut.overlay.png"]
    assert Image.open(out / "astronaut.overlay.png").size == (512, 512)
    assert json.loads((out / "astronaut.json").read_text())["size"] == [512, 512]
    for part in ("NASA", "backbone", "2.0 ms", str(out / "astronaut.overlay.png")):
        assert part in text


@pytest.mark.skipif("people" not in bundled_packs(), reason="the pack people is not bundled")
def test_demo_as_installed(out):
    command = [sys.executable, "-m", "edgemask", "demo", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert files(out) == ["astronaut.json", "astronaut.overlay.png"]
    assert "total" in done.stdout


@pytest.mark.skipif("people" not in bundled_packs(), reason="the pack people is not bundled")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(("width", "height", "limit"), [(4000, 3000, 250), (640, 480, 150)])
def test_peak_memory(tmp_path, out, width, height, limit):
    small = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(small).resize((width, height)).save(tmp_path / "photo.jpg")
    # VmHWM and not ru_maxrss, which starts with the memory of the process that forks.
    script = (
        "import sys; from edgemask.cli import main; status = main(sys.argv[1:]);"
        "line = next(l for l in open('/proc/self/status') if l.startswith('VmHWM'));"
        "print(line.split()[1], file=sys.stderr); sys.exit(status)"
    )
    arguments = ["predict", str(tmp_path / "photo.jpg"), "--out", str(out), "--score", "0.01"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stderr) / 1024 < limit


# ---- eval


@pytest.fixture
def annotated(tmp_path):
    """A folder of two drawn images and the path of their annotations."""
    images, annotations = [], []
    for n in (1, 2):
        scene = draw_scene(seed=n)
        scene.save(tmp_path / "images" / f"{n}.png")
        images.append({"id": n, "file_name": f"{n}.png", "height": 48, "width": 64})
        annotations += coco_results(make_instances(scene.masks), n)
    for n, entry in enumerate(annotations, 1):
        entry.update(id=n, iscrowd=0, area=entry["bbox"][2] * entry["bbox"][3])
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(data))
    return tmp_path / "images", tmp_path / "a.json"


def test_eval(capsys, tmp_path, annotated):
    pytest.importorskip("pycocotools")
    folder, path = annotated
    saved = tmp_path / "results" / "p.json"
    status, text, err = run(
        capsys, "eval", "--annotations", path, "--images", folder, "--save", saved
    )
    assert (status, err) == (0, "")
    assert "2 images, person, model fake" in text
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert lines["box"][:2] == lines["mask"][:2] == ["1.000", "1.000"]
    assert lines["mask"][5] == "-"
    assert len(json.loads(saved.read_text())) == len(json.loads(path.read_text())["annotations"])


def test_eval_without_common_classes(capsys, tmp_path, annotated):
    pytest.importorskip("pycocotools")
    folder, path = annotated
    data = json.loads(path.read_text())
    data["categories"], data["annotations"] = [{"id": 5, "name": "airplane"}], []
    path.write_text(json.dumps(data))
    status, _, err = run(capsys, "eval", "--annotations", path, "--images", folder)
    assert status == 1
    one_error(err, "none of the classes [1]")


@pytest.fixture
def never(monkeypatch):
    """What is wrong is said before anything is segmented."""

    def predict(*_):
        raise AssertionError("an image was segmented")

    monkeypatch.setattr("edgemask.evaluate.predict_dataset", predict)


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"area": "big"}, ["annotation 1 has area big"]),
        ({"iscrowd": "no"}, ["annotation 1 has iscrowd no"]),
        ({"bbox": None}, ["annotation 1 has bbox None"]),
        ({"bbox": [1, 2, "3", 4]}, ["annotation 1 has bbox"]),
        ({"segmentation": {"size": [48, 64]}}, ["annotation 1 has the RLE", "counts"]),
        (
            {"segmentation": {"size": [96, 128], "counts": [12288]}},
            ["annotation 1: its RLE has size [96, 128], its image [48, 64]"],
        ),
        ({"segmentation": {"size": [48, 64], "counts": [5, 5]}}, ["counts that are not the image"]),
        ({"segmentation": [[[0, 0]] * 6]}, ["annotation 1 has segmentation", "flat lists"]),
        ({"segmentation": "outline", "id": None}, ["annotation None has segmentation outline"]),
    ],
)
def test_eval_of_bad_annotations(capsys, annotated, change, words):
    pytest.importorskip("pycocotools")
    folder, path = annotated
    data = json.loads(path.read_text())
    data["annotations"][0].update(change)
    path.write_text(json.dumps(data))
    status, text, err = run(capsys, "eval", "--annotations", path, "--images", folder)
    assert (status, text) == (1, "")
    one_error(err, *words)


@pytest.mark.usefixtures("never")
def test_eval_where_the_predictions_cannot_be_written(capsys, annotated):
    pytest.importorskip("pycocotools")
    folder, path = annotated
    for target in (folder, path / "p.json", "."):
        status, text, err = run(
            capsys, "eval", "--annotations", path, "--images", folder, "--save", target
        )
        assert (status, text) == (1, "")
        one_error(err, "cannot be written")


def test_eval_of_an_area_or_crowd_that_is_null(capsys, annotated):
    pytest.importorskip("pycocotools")
    folder, path = annotated
    data = json.loads(path.read_text())
    for entry in data["annotations"]:
        entry.update(area=None, iscrowd=None)
    path.write_text(json.dumps(data))
    assert run(capsys, "eval", "--annotations", path, "--images", folder)[0] == 0


def test_eval_of_classes_that_have_another_name(capsys, annotated):
    pytest.importorskip("pycocotools")
    folder, path = annotated
    data = json.loads(path.read_text())
    for name, said in (("Person", 0), ("cat", 1)):
        data["categories"][0]["name"] = name
        path.write_text(json.dumps(data))
        status, _, err = run(capsys, "eval", "--annotations", path, "--images", folder)
        assert status == 0
        assert err.count("warning: category 1 is 'cat'") == said


def test_eval_with_a_missing_image(capsys, annotated):
    pytest.importorskip("pycocotools")
    folder, path = annotated
    (folder / "2.png").unlink()
    status, text, err = run(capsys, "eval", "--annotations", path, "--images", folder)
    assert (status, text) == (1, "")
    one_error(err, "2.png")


# ---- info


def test_info(capsys, small_pack):
    status, text, err = run(capsys, "info", small_pack)
    assert (status, err) == (0, "")
    for part in ("small 1", "Apache-2.0", "person", "mask_ap: 0.125", "AVERAGE_POOL_2D"):
        assert part in text
    assert text.count("1 XNNPACK partition") == 3


def test_info_without_a_runtime(capsys, small_pack, monkeypatch):
    from edgemask import interpreter

    def missing(module):
        raise ImportError(f"No module named {module!r}")

    interpreter._load_runtime.cache_clear()
    monkeypatch.setattr(interpreter, "import_module", missing)
    try:
        status, text, _ = run(capsys, "info", small_pack)
    finally:
        interpreter._load_runtime.cache_clear()
    assert status == 0
    assert "pip install ai-edge-litert" in text
    assert "mask_ap: 0.125" in text


def test_info_of_a_damaged_pack(capsys, small_pack):
    small_pack.write_bytes(small_pack.read_bytes()[:1000])
    status, text, err = run(capsys, "info", small_pack)
    assert (status, text) == (1, "")
    one_error(err, "small.zip", "fetch the pack again")


@pytest.mark.parametrize("name", bundled_packs())
def test_info_of_every_bundled_pack(capsys, name):
    status, text, _ = run(capsys, "info", name)
    assert status == 0
    assert f"{name} " in text
    assert not [sign for sign in ("[", "{", "None") if sign in text]  # Python's, not words
