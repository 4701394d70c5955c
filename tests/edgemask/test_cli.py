"""The command line: what it writes, what it prints, and how it fails."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import pty
import shlex
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import draw_scene, make_instances, png_header

from edgemask import __version__
from edgemask.cli import build_parser, common, demo, eval, info, main, predict, results
from edgemask.errors import OutputError
from edgemask.images import load_image
from edgemask.modelpack import bundled_packs
from edgemask.outputs import FORMATS, coco_results

pytestmark = pytest.mark.usefixtures("fake_segmenter")


@pytest.fixture
def photo(tmp_path, scene):
    return str(scene.save(tmp_path / "photo.png"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def run(capsys, *arguments):
    """Run the command line and return its status and what it printed."""
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def files(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def one_error(err, *words):
    """Check that stderr is one error line with all the words."""
    assert err.startswith("edgemask: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    for word in words:
        assert word in err


# ---- the program


def test_version_and_help(capsys):
    assert run(capsys, "--version") == (0, f"edgemask {__version__}\n", "")
    status, text, _ = run(capsys, "--help")
    assert status == 0
    for verb in ("demo", "predict", "eval", "info"):
        assert verb in text
    assert run(capsys)[:2] == (0, text)


@pytest.mark.parametrize("module", [demo, predict, eval, info])
def test_help_of_a_verb_shows_an_example_that_parses(capsys, module):
    verb = module.__name__.rpartition(".")[2]
    status, text, _ = run(capsys, verb, "--help")
    assert status == 0
    assert module.EXAMPLE in text
    program, *arguments = shlex.split(module.EXAMPLE)
    assert program == "edgemask"
    assert build_parser().parse_args(arguments).verb == verb


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment"],
        ["predict"],
        ["predict", "x.png", "--score", "1.5"],
        ["predict", "x.png", "--score", "high"],
        ["predict", "x.png", "--threads", "0"],
        ["predict", "x.png", "--max-detections", "-3"],
        ["predict", "x.png", "--short-side", "big"],
        ["predict", "x.png", "--format", "overlay,svg"],
        ["eval", "--images", "x"],
        ["info", "--colour"],
    ],
)
def test_arguments_that_are_wrong(capsys, arguments):
    status, text, err = run(capsys, *arguments)
    assert (status, text) == (1, "")
    one_error(err, "--help")


def test_debug_shows_the_traceback(capsys, tmp_path):
    status, _, err = run(capsys, "info", tmp_path / "none.zip", "--debug")
    assert status == 1
    assert err.startswith("edgemask: error: ")
    assert "Traceback" in err


def test_unexpected_error_is_one_line(capsys, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(common, "make_segmenter", fail)
    status, _, err = run(capsys, "demo")
    assert status == 1
    one_error(err, "ZeroDivisionError: division by zero", "--debug")


def test_interrupt(capsys, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(common, "make_segmenter", fail)
    status, _, err = run(capsys, "demo")
    assert status == 130
    one_error(err, "interrupted")


def test_warnings_are_one_line(capsys, monkeypatch, photo, out):
    def warn(*_):
        warnings.warn("slow\nmachine", RuntimeWarning, stacklevel=2)
        raise OutputError("no")

    before = warnings.showwarning
    monkeypatch.setattr(common, "make_segmenter", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        _, _, err = run(capsys, "predict", photo)
        assert err == "edgemask: warning: slow machine\nedgemask: error: no\n"
    assert warnings.showwarning is before


def test_running_the_module():
    command = [sys.executable, "-m", "edgemask", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"edgemask {__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["info", "PACK"]])
def test_reader_that_has_gone(small_pack, arguments):
    arguments = [str(small_pack) if argument == "PACK" else argument for argument in arguments]
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edgemask", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    # argparse itself forgives a closed pipe when it prints its help.
    assert done.returncode == (1 if "info" in arguments else 0)
    assert done.stderr == ""


def test_importing_edgemask_costs_next_to_nothing():
    script = "import sys, edgemask; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout
    assert "edgemask" in loaded.split()
    assert not {"numpy", "PIL", "ai_edge_litert", "tflite_runtime"} & set(loaded.split())


def test_names_of_the_package():
    import edgemask

    assert set(edgemask.__all__) <= set(dir(edgemask))
    for name in edgemask.__all__:
        assert getattr(edgemask, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = edgemask.nonsense


# ---- predict


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
    assert "1 of 1 images, 2 instances" in text


def test_formats_are_those_of_outputs():
    assert results.FORMATS == FORMATS


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


# ---- progress


def on_terminal(work):
    """Run work(stream) with a stream that is a terminal, and return what was written."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        work(stream)
    written = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed, and all of it is read
        while chunk := os.read(master, 10_000):
            written += chunk
    os.close(master)
    return written.decode()


def test_progress_bar_on_a_terminal(monkeypatch):
    def work(stream):
        with common.Progress("working", 4, stream=stream, delay=0) as progress:
            progress.update(2)

    text = on_terminal(work)
    assert "working" in text
    assert "/4 [" in text
    assert text.rsplit("\r", 1)[1] == ""  # the bar is wiped, the next line starts where it stood


def test_no_progress_bar_for_short_work_or_a_pipe():
    def work(stream):
        with common.Progress("working", 4, stream=stream) as progress:
            progress.update(2)
        stream.write("end")

    assert on_terminal(work) == "end"
    piped = io.StringIO()
    with common.Progress("working", 4, stream=piped, delay=0) as progress:
        progress.update(2)
    assert piped.getvalue() == ""


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


# ---- options of the model


def test_options_reach_the_segmenter(monkeypatch):
    made = {}

    def fake(model, **options):
        made.update(options, model=model)

    monkeypatch.undo()
    monkeypatch.setattr("edgemask.segmenter.Segmenter", fake)
    options = build_parser().parse_args(
        ["predict", "x", "--model", "tiny", "--threads", "2", "--short-side", "256"]
    )
    common.make_segmenter(options, 0.3, 7)
    assert made == {
        "model": "tiny",
        "threads": 2,
        "short_side": 256,
        "score_threshold": 0.3,
        "max_detections": 7,
    }
