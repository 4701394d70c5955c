"""The real picamera2 on the real libcamera, whose virtual camera shows a photograph.

Runs in the Debian tree that ``.ci/legs/camera`` makes; that script also writes the photograph and
the configuration of the virtual camera, before libcamera reads it. From there on nothing is faked
but what a virtual camera cannot have: raw modes, a window, and buffers from a DMA heap.
"""

from __future__ import annotations

import inspect
import itertools
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import fake_picamera2
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.camera

PHOTOGRAPH = Path("/usr/share/libcamera/pipeline/virtual/photograph.png")
SIZE = (640, 480)


@pytest.fixture(scope="module", autouse=True)
def picamera2():
    """The real picamera2."""
    import virtual_camera

    return virtual_camera.prepare()


@pytest.fixture(scope="module")
def photograph():
    return np.asarray(Image.open(PHOTOGRAPH).convert("RGB"))


def open_camera(options=""):
    from edgemask.sources import open_source

    return open_source(f"camera:0?size={SIZE[0]}x{SIZE[1]}{options}")


def test_pixels_are_those_of_the_photograph(photograph):
    with open_camera("&fps=15") as source:
        assert source.layout.format == "NV12"  # whatever else was asked for
        frame = source.read()
    assert frame.rgb.shape == photograph.shape
    difference = np.abs(frame.rgb.astype(int) - photograph)
    # What JPEG, chroma at half the resolution and libyuv's rounding down cost. The other range
    # costs 8 levels on average.
    assert difference.mean() < 3


def test_times_and_indices_rise():
    with open_camera("&fps=15") as source:
        frames = [source.read() for _ in range(5)]
    for before, after in itertools.pairwise(frames):
        assert after.index > before.index
        assert after.sensor_ns > before.sensor_ns
        assert after.wall_ns > before.wall_ns
    # CLOCK_BOOTTIME, as on a Pi.
    assert abs(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - frames[-1].sensor_ns) < 60 * 10**9


def test_frame_rate_is_kept():
    with open_camera("&fps=10") as source:
        first = source.read()
        frames = [source.read() for _ in range(4)]
    assert (frames[-1].wall_ns - first.wall_ns) / 1e9 > 0.3  # the virtual camera itself runs free


def test_masks_are_those_of_the_photograph(photograph):
    from edgemask import Segmenter

    segmenter = Segmenter()
    direct = segmenter(photograph)
    with open_camera() as source:
        seen = segmenter(source.read().rgb)
    assert len(direct) == len(seen) > 0
    for a, b in zip(direct.masks.to_dense(), seen.masks.to_dense(), strict=True):
        assert (a & b).sum() / (a | b).sum() > 0.9


def test_many_frames_and_a_slow_reader_starve_nothing():
    with open_camera("&buffers=2&fps=1000") as source:
        for _ in range(30):
            source.read()
        asleep = time.time_ns()
        time.sleep(0.5)
        assert source.read().wall_ns > asleep
        assert source.dropped > 0


def test_open_again_after_close():
    for _ in range(3):
        with open_camera() as source:
            assert source.read() is not None
            assert source.read() is not None


def test_close_from_another_thread():
    source = open_camera()
    source.read()
    threading.Timer(0.2, source.close).start()
    while source.read() is not None:
        pass
    assert source.closed


def test_missing_camera():
    from edgemask.errors import CameraMissing
    from edgemask.sources import open_source

    with pytest.raises(CameraMissing, match="there is no camera:7: there is camera:0"):
        open_source("camera:7")


def test_predict(tmp_path):
    """The whole command, in a process of its own."""
    script = (
        "import sys, virtual_camera; virtual_camera.prepare();"
        "from edgemask.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "predict", "camera:0?fps=5", "--frames", "2"]
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        [*command, "--out", "o", "--format", "overlay,json"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{here}:{here.parents[1]}"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "o" / "camera").iterdir())) == 4
    assert done.stdout.count("instance") == 2


# ---- the fake is like the real one


FAKED = [
    (owner, name)
    for owner, kind in (
        ("Picamera2", fake_picamera2.Picamera2),
        ("CompletedRequest", fake_picamera2.CompletedRequest),
    )
    for name, value in vars(kind).items()
    if inspect.isroutine(value) and (name == "__init__" or not name.startswith("_"))
]


@pytest.mark.parametrize(("owner", "name"), FAKED)
def test_signatures_of_the_fake(picamera2, owner, name):
    from picamera2.request import CompletedRequest

    real = {"Picamera2": picamera2.Picamera2, "CompletedRequest": CompletedRequest}[owner]
    wanted = inspect.signature(getattr(real, name)).parameters
    found = inspect.signature(getattr(getattr(fake_picamera2, owner), name)).parameters
    assert list(found) == list(wanted)
    for parameter, ours in found.items():
        theirs = wanted[parameter]
        assert ours.kind == theirs.kind
        if parameter != "transform":  # an object of libcamera
            assert ours.default == theirs.default, parameter


def test_manners_of_the_fake(picamera2):
    """What the fake does to careless programs, the real one does."""
    assert picamera2.TimeoutError is fake_picamera2.TimeoutError
    camera = picamera2.Picamera2(0)
    try:
        main = {"size": SIZE, "format": "BGR888"}
        camera.configure(camera.create_video_configuration(main=main, raw=None, buffer_count=2))
        assert camera.stream_configuration("main")["format"] == "NV12"
        camera.start()
        held = []
        with pytest.raises(fake_picamera2.TimeoutError):
            held.extend(camera.capture_request(wait=2) for _ in range(10))
        assert 1 <= len(held) < 10  # then there was no buffer left
        assert len(camera._job_list) == 1  # and the capture is still queued
        camera.cancel_all_and_flush()
        for request in held:
            request.release()
        with pytest.raises(RuntimeError, match="negative ref_count"):
            held[0].release()
        request = camera.capture_request(wait=5)
        assert isinstance(request.get_metadata()["SensorTimestamp"], int)
        buffer = request.make_buffer("main")
        assert (buffer.dtype, buffer.ndim) == (np.uint8, 1)
        assert buffer.size >= camera.stream_configuration("main")["framesize"]
        request.release()
        space = camera.camera_configuration()["colour_space"]
        assert (space.ycbcrEncoding.name, space.range.name) == ("Rec601", "Limited")
    finally:
        camera.cancel_all_and_flush()  # or stop() would wait for ever
        camera.stop()
        camera.close()


def test_conversion_is_that_of_picamera2s_colour_space(photograph):
    """Taken for full range, the same bytes are greyer: the range the camera states is used."""
    from edgemask.sources.colour import to_rgb

    with open_camera() as source:
        _, _, _, raw = source._slot.get(5)
        limited = to_rgb(raw, source.layout)
        full = to_rgb(raw, replace(source.layout, full_range=True))
    assert np.abs(limited.astype(int) - photograph).mean() < 3
    assert np.abs(full.astype(int) - photograph).mean() > 5
