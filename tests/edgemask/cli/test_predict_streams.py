"""``edgemask predict`` on what has many frames: videos, cameras, streams, drawn scenes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fake_picamera2
import numpy as np
import pytest
from PIL import Image
from synthetic import draw_scene

from edgemask.cli import main
from edgemask.sources import base

pytestmark = pytest.mark.usefixtures("fake_segmenter")


def run(capsys, *arguments):
    status = main(["predict", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def test_frames_go_into_a_folder_of_their_source(capsys, out):
    uri = "synthetic:?frames=3&size=64x48&fps=10"
    status, text, err = run(capsys, uri, "--out", out, "--format", "overlay,json,masks")
    assert (status, err) == (0, "")
    kinds = ("json", "mask.png", "overlay.png")
    assert files(out) == [f"synthetic/{n:06d}.{kind}" for n in range(3) for kind in kinds]
    record = json.loads((out / "synthetic" / "000002.json").read_text())
    assert record["file_name"] == "synthetic-000002"
    assert (record["index"], record["sensor_ns"]) == (2, 200_000_000)
    assert record["wall_ns"] > 10**18
    assert record["size"] == [48, 64]
    assert text.splitlines()[0].startswith("synthetic-000000: nothing found -> ")


def test_more_frames_than_python_counts_to(capsys, out):
    uri = "synthetic:?frames=2&size=64x48"
    status, _, err = run(capsys, uri, "--frames", "9" * 20, "--out", out)
    assert (status, err, len(files(out))) == (0, "", 2)


def test_frames_limit_each_source(capsys, out):
    uris = ["synthetic:?size=32x32&seed=1", "synthetic:?size=32x32&seed=2"]
    status, _, _ = run(capsys, *uris, "--frames", "2", "--out", out)
    assert status == 0
    folders = ("synthetic", "synthetic-2")
    assert set(files(out)) == {f"{f}/{n:06d}.overlay.png" for f in folders for n in range(2)}


def test_long_videos_get_one_line(capsys, out):
    uri = "synthetic:?size=32x32&frames=30"
    _, text, _ = run(capsys, uri, "--out", out)
    assert text.count("\n") == 1
    assert text.startswith(f"{uri}: 30 frames, 0 instances -> {out / 'synthetic'} (")


def test_a_line_for_each_frame_of_a_live_source(capsys, out):
    uri = "synthetic:?size=32x32&live=1&fps=200"
    _, text, _ = run(capsys, uri, "--frames", "30", "--out", out)
    assert text.count(": nothing found -> ") == 30


def test_camera(capsys, monkeypatch, out):
    fake_picamera2.install(monkeypatch)
    status, text, err = run(capsys, "camera:0?size=64x48", "--frames", "3", "--out", out)
    assert (status, err) == (0, "")
    assert len(files(out)) == 3
    assert files(out)[0].startswith("camera/")
    assert text.count("camera-") == 3


def test_camera_that_falls_silent_keeps_what_was_found(capsys, monkeypatch, out):
    hardware = fake_picamera2.install(monkeypatch)
    hardware.frames, hardware.interval = 3, 0.2
    uri = "camera:0?size=64x48&timeout=0.6"
    status, text, err = run(capsys, uri, "--out", out, "--format", "coco", "--reconnect", "0")
    assert status == 1
    assert err.startswith("edgemask: error: camera:0 gave no frame for 0.6 s")
    assert err.count("\n") == 1
    assert json.loads((out / "coco.json").read_text()) == []
    assert hardware.opened[0].closed
    assert "instances -> " in text


@pytest.fixture
def quick(monkeypatch):
    """Wait next to nothing between attempts."""
    monkeypatch.setattr("edgemask.live.reopen.BACKOFF", (0.01, 0.02))


@pytest.mark.usefixtures("quick")
def test_camera_that_comes_back_goes_on_where_it_was(capsys, monkeypatch, out):
    hardware = fake_picamera2.install(monkeypatch)
    hardware.frames, hardware.interval = 2, 0.05
    uri = "camera:0?size=64x48&timeout=1"
    status, _, err = run(capsys, uri, "--frames", "5", "--out", out, "--format", "json")
    assert status == 0
    written = files(out)
    assert len(written) == 5  # nothing was overwritten
    numbers = [json.loads((out / name).read_text())["index"] for name in written]
    assert [f"camera/{n:06d}.json" for n in numbers] == written
    times = [json.loads((out / name).read_text())["wall_ns"] for name in written]
    assert times == sorted(times)
    lines = err.splitlines()
    # One for each time it stopped; on a busy machine a camera may have been opened in vain.
    assert len(hardware.opened) - 1 >= len(lines) >= 2
    for line in lines:
        assert line.startswith("edgemask: warning: camera:0 gave no frame for 1 s")
        assert line.endswith(" (trying again)")
    assert all(camera.closed for camera in hardware.opened)


@pytest.mark.usefixtures("quick")
def test_camera_that_stays_away_is_given_up(capsys, monkeypatch, out):
    hardware = fake_picamera2.install(monkeypatch)
    hardware.frames, hardware.interval = 2, 0.05
    asked = []

    def unplug(*_):
        if len(hardware.opened) == 1:
            asked.append(1)
            raise RuntimeError("Camera number 0 has gone")

    real = fake_picamera2.Picamera2.__init__

    def init(self, *arguments, **options):
        unplug()
        real(self, *arguments, **options)

    monkeypatch.setattr(fake_picamera2.Picamera2, "__init__", init)
    uri = "camera:0?size=64x48&timeout=1"
    status, _, err = run(capsys, uri, "--out", out, "--reconnect", "3")
    assert status == 1
    warning, error = err.splitlines()
    assert warning.startswith("edgemask: warning: camera:0 gave no frame for 1 s")
    assert error.startswith("edgemask: error: camera:0")
    assert len(asked) == 3
    assert len(files(out)) == 2


@pytest.fixture
def mjpeg():
    """The address of a camera that sends three pictures and hangs up, and how often it was asked.

    What is at /file says beforehand how long it is, and so does /zeros, which has no picture.
    """
    stream = io.BytesIO()
    Image.new("RGB", (32, 24), (90, 90, 90)).save(stream, "JPEG")
    part = b"--f\r\nContent-Type: image/jpeg\r\n\r\n" + stream.getvalue() + b"\r\n"
    asked = []

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=f")
            sent = bytes(len(part)) if self.path == "/zeros" else part
            if self.path != "/live":
                self.send_header("Content-Length", str(3 * len(part)))
            self.end_headers()
            for _ in range(3):
                self.wfile.write(sent)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("quick")
def test_stream_that_hangs_up_is_opened_again(capsys, mjpeg, out):
    address, asked = mjpeg
    status, _, err = run(capsys, f"{address}/live", "--frames", "4", "--out", out)
    assert status == 0
    assert len(asked) >= 2
    assert len(files(out)) == 4
    assert set(err.splitlines()) == {
        f"edgemask: warning: {address}/live ended: check what sends it (trying again)"
    }


def test_file_of_a_web_server_is_read_once(capsys, mjpeg, out):
    address, asked = mjpeg
    status, _, err = run(capsys, f"{address}/file", "--out", out)
    assert (status, err, asked) == (0, "", ["/file"])
    assert 1 <= len(files(out)) <= 3


def test_what_has_no_picture_is_an_error(capsys, mjpeg, out):
    address, _ = mjpeg
    status, _, err = run(capsys, f"{address}/zeros", "--out", out)
    assert status == 1
    assert err == f"edgemask: error: {address}/zeros has no frames: check what sends it\n"


@pytest.mark.parametrize("number", ["-1", "x", "1.5", "99999999999"])
def test_attempts_are_a_number(capsys, out, number):
    status, _, err = run(capsys, "synthetic:", "--out", out, f"--reconnect={number}")
    assert status == 1
    assert f"--reconnect: {number!r} is not a whole number of at least 0; see" in err
    assert err.count("\n") == 1


def test_one_bad_source_does_not_stop_the_others(capsys, monkeypatch, tmp_path, out):
    hardware = fake_picamera2.install(monkeypatch)
    hardware.cameras = []
    photo = draw_scene().save(tmp_path / "photo.png")
    sources = ["camera:0", photo, "camra:0", "synthetic:?peple=1", "synthetic:?frames=1"]
    status, text, err = run(capsys, *sources, "--out", out)
    assert status == 1
    lines = err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("edgemask: error: ") for line in lines)
    assert any("no camera was found" in line for line in lines)
    assert any("did you mean camera:?" in line for line in lines)
    assert any("did you mean people?" in line for line in lines)
    assert files(out) == ["photo.overlay.png", "synthetic/000000.overlay.png"]
    assert f"{photo}: 2 instances" in text


def test_coco_of_images_and_frames_together(capsys, monkeypatch, tmp_path, out):
    """Ids differ, and the file is one valid list however it was written."""
    scenes = [draw_scene(seed=n) for n in range(3)]
    photo = scenes[0].save(tmp_path / "7.png")
    hardware = fake_picamera2.install(monkeypatch)
    hardware.format = "BGR888"
    hardware.pixels = lambda number: scenes[1 + number % 2].rgb.reshape(-1)
    status, _, _ = run(
        capsys, photo, "camera:0?size=64x48", "--frames", "2", "--out", out, "--format", "coco"
    )
    assert status == 0
    assert files(out) == ["coco.json"]
    results = json.loads((out / "coco.json").read_text())
    assert {result["image_id"] for result in results} == {1, 2, 3}
    names = {result["file_name"] for result in results}
    assert str(photo) in names
    assert all(name.startswith("camera-") for name in names - {str(photo)})
    assert len(results) >= 5


def test_an_image_that_cannot_be_read_keeps_its_number(capsys, monkeypatch, tmp_path, out):
    scenes = [draw_scene(seed=n) for n in range(3)]
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    good = scenes[0].save(tmp_path / "good.png")
    piped = io.BytesIO()
    for scene in scenes[1:]:
        Image.fromarray(scene.rgb).save(piped, "JPEG")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(piped.getvalue())))
    status, _, _ = run(capsys, bad, good, "-", "--out", out, "--format", "coco")
    assert status == 1
    results = json.loads((out / "coco.json").read_text())
    ids = {(result["image_id"], result["file_name"]) for result in results}
    assert ids == {(2, str(good)), (3, "stdin-000000"), (4, "stdin-000001")}


def test_names_that_are_no_text(capfd, tmp_path, scene, out):
    """Old cards and archives have them; they are escaped, and nothing is left out."""
    folder = tmp_path / "odd"
    folder.mkdir()
    names = ["a.png", os.fsdecode(b"caf\xe9.png"), "z.png"]
    for name in names:
        scene.save(folder / name)
    assert main(["predict", str(folder), "--out", str(out), "--format", "json,coco"]) == 0
    assert len([name for name in os.listdir(out) if name.endswith(".json")]) == 4
    results = json.loads((out / "coco.json").read_text("utf-8"))
    assert {result["file_name"] for result in results} == {str(folder / name) for name in names}


def test_jpegs_piped_in(capsys, monkeypatch, out):
    content = b""
    for n in range(3):
        stream = io.BytesIO()
        Image.fromarray(draw_scene(seed=n).rgb).save(stream, "JPEG")
        content += stream.getvalue()
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(content)))
    status, _, _ = run(capsys, "-", "--out", out)
    assert status == 0
    assert files(out) == [f"stdin/{n:06d}.overlay.png" for n in range(3)]


def test_password_is_not_printed(capsys, out):
    pytest.importorskip("av")
    uri = "rtsp://me:hunter2@127.0.0.1:1/live"
    status, text, err = run(capsys, uri, "--out", out, "--debug")
    assert status == 1
    assert "rtsp://me:***@127.0.0.1:1/live" in err
    assert "hunter2" not in text + err


def test_folders_of_hosts_keep_their_dots(capsys, monkeypatch, out):
    class Stream(base.Source):
        live = True

        def read(self, timeout=5.0):
            return base.Frame(np.zeros((8, 8, 3), np.uint8), 5, None, 0, "192.168.1.20-000005")

        def _release(self):
            pass

    monkeypatch.setattr("edgemask.sources.open_source", lambda uri: Stream("stream"))
    run(capsys, "http://192.168.1.20/live", "--frames", "1", "--out", out)
    assert files(out) == ["192.168.1.20/000005.overlay.png"]


@pytest.mark.skipif(not hasattr(signal, "SIGINT"), reason="needs signals")
def test_ctrl_c_stops_a_camera_and_keeps_the_results(tmp_path):
    script = (
        "import signal, sys; from types import SimpleNamespace as N;"
        # A shell's background jobs, and all their children, are started with SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from edgemask.cli import common, main; from synthetic import FakeSegmenter;"
        "pack = N(name='fake', version='1', sha256='0', class_ids=(1,), class_names={1: 'person'});"
        "common.make_segmenter = lambda *_: FakeSegmenter(pack);"
        "sys.exit(main(sys.argv[1:]))"
    )
    root = Path(__file__).resolve().parents[3]
    uri = "synthetic:?live=1&fps=30&size=64x48"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "predict", uri, "--format", "coco,json", "--out", "o"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout.readline().startswith("synthetic-")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "edgemask: error: interrupted\n"
    assert json.loads((tmp_path / "o" / "coco.json").read_text()) == []
    # Nothing half-written is left.
    assert all(Path(name).suffix == ".json" for name in files(tmp_path / "o"))
