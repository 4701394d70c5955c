"""The Pi camera, on a picamera2 that behaves as badly as the real one."""

from __future__ import annotations

import builtins
import gc
import os
import sys
import threading
import time
import types
import weakref

import fake_picamera2
import numpy as np
import pytest

from edgemask.errors import (
    CameraBusy,
    CameraMissing,
    InputError,
    RuntimeUnavailable,
    SourceError,
    SourceTimeout,
)
from edgemask.sources import camera as camera_module
from edgemask.sources import open_source
from edgemask.sources.holders import Holder

SIZE = "size=64x48"


@pytest.fixture
def hardware(monkeypatch):
    return fake_picamera2.install(monkeypatch)


def until(condition, seconds=5.0):
    """Wait for a condition and say whether it came."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def test_frames(hardware):
    with open_source(f"camera:0?{SIZE}&fps=30") as source:
        assert source.live
        frames = [source.read() for _ in range(3)]
    for frame in frames:
        assert frame.rgb.shape == (48, 64, 3)
        assert frame.rgb.dtype == np.uint8
        assert frame.name == f"camera-{frame.index:06d}"
        # The sensor's time is that of the very frame, whose number is in its pixels.
        number = int(frame.rgb[0, 0, 0])
        assert frame.sensor_ns == 1_000_000_000 + number * 66_666_667
        assert abs(time.time_ns() - frame.wall_ns) < 60 * 10**9
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
    (opened,) = hardware.opened
    assert opened.closed
    assert opened.stopped == 1


def test_configuration_costs_little_and_sees_everything(hardware):
    with open_source(f"camera:0?{SIZE}&fps=20"):
        config = hardware.opened[0].camera_configuration()
    assert config["main"]["format"] == "BGR888"
    assert config["raw"] is None
    assert config["lores"] is None
    assert config["buffer_count"] == 3
    assert config["queue"] is False
    assert config["controls"] == {"FrameDurationLimits": (50_000, 50_000)}
    # Half the pixel array: binned, but the whole field of view.
    assert config["sensor"] == {"output_size": (2304, 1296)}


def test_options(hardware):
    uri = "camera:?size=320x240&buffers=2&sensor=1536x864&hflip=1"
    with open_source(uri, vflip=True):
        config = hardware.opened[0].camera_configuration()
    assert config["main"]["size"] == (320, 240)
    assert config["buffer_count"] == 2
    assert config["sensor"] == {"output_size": (1536, 864)}
    assert config["transform"] == ("transform", {"hflip": True, "vflip": True})


@pytest.mark.parametrize(("hflip", "vflip"), [(True, False), (False, True)])
def test_each_flip_is_its_own(hardware, hflip: bool, vflip: bool) -> None:
    with open_source(f"camera:0?{SIZE}", hflip=hflip, vflip=vflip):
        config = hardware.opened[0].camera_configuration()
    assert config["transform"] == ("transform", {"hflip": hflip, "vflip": vflip})


@pytest.mark.parametrize("padding", [0, 32])
@pytest.mark.parametrize("kind", ["BGR888", "RGB888", "XBGR8888", "NV12", "YUV420", "YUYV"])
def test_whatever_the_camera_gives_becomes_rgb(hardware, kind, padding):
    hardware.format, hardware.padding = kind, padding
    # Red, in bytes that are the same in every row, so that the padding alone can spoil it.
    row = {
        "BGR888": [255, 0, 0],
        "RGB888": [0, 0, 255],
        "XBGR8888": [255, 0, 0, 9],
        "YUYV": [81, 90, 81, 240],
    }

    def pixels(_):
        stream = hardware.opened[0].stream_configuration()
        stride, height = stream["stride"], stream["size"][1]
        if kind in row:
            one = np.resize(np.array(row[kind], np.uint8), stride - padding)
            rows = np.zeros((height, stride), np.uint8)
            rows[:, : stride - padding] = one
            return rows.reshape(-1)
        luma = np.full(height * stride, 81, np.uint8)
        if kind == "NV12":
            return np.concatenate([luma, np.tile(np.array([90, 240], np.uint8), len(luma) // 4)])
        half = len(luma) // 4
        return np.concatenate([luma, np.full(half, 90, np.uint8), np.full(half, 240, np.uint8)])

    hardware.pixels = pixels
    with open_source(f"camera:0?{SIZE}") as source:
        rgb = source.read().rgb
    assert rgb.shape == (48, 64, 3)
    np.testing.assert_allclose(
        rgb.astype(int), np.broadcast_to((255, 0, 0), rgb.shape), rtol=0, atol=2
    )


@pytest.mark.parametrize(
    ("encoding", "value_range", "matrix", "full"),
    [
        ("Rec601", "Full", "bt601", True),
        ("Rec709", "Limited", "bt709", False),
        ("Rec2020", "Limited", "bt2020", False),
        ("Null", "Full", "bt601", True),
    ],
)
def test_matrix_and_range_are_those_of_the_camera(hardware, encoding, value_range, matrix, full):
    hardware.format = "NV12"
    name = types.SimpleNamespace
    hardware.colour_space = name(ycbcrEncoding=name(name=encoding), range=name(name=value_range))
    with open_source(f"camera:0?{SIZE}") as source:
        assert (source.layout.matrix, source.layout.full_range) == (matrix, full)


def test_usb_camera_without_a_colour_space(hardware):
    hardware.format, hardware.properties = "YUYV", {}
    with open_source(f"camera:0?{SIZE}") as source:
        assert (source.layout.matrix, source.layout.full_range) == ("bt601", False)
        assert source.read().rgb.shape == (48, 64, 3)
    assert hardware.opened[0].camera_configuration()["sensor"] == {}


def test_slow_reader_gets_the_newest_frame_and_never_stalls_the_camera(hardware):
    with open_source(f"camera:0?{SIZE}&buffers=2&fps=500") as source:
        first, asleep = source.read(), time.time_ns()
        time.sleep(0.5)
        second = source.read()
        assert second.index > first.index + 5
        assert source.dropped >= second.index - first.index - 1
        assert second.wall_ns > asleep
        opened = hardware.opened[0]
        assert until(lambda: opened.free_buffers >= 1)
    # Every request has gone back.
    assert until(lambda: opened.free_buffers == 2)
    assert opened.stalls == 0


def test_frame_rate_of_a_camera_that_cannot_be_slow(hardware):
    hardware.controls = {"FrameDurationLimits": (33333, 33333, None)}
    with open_source(f"camera:0?{SIZE}&fps=20") as source:
        source.read()
        start = time.monotonic()
        for _ in range(4):
            source.read()
        assert time.monotonic() - start >= 0.12


def test_camera_without_controls(hardware):
    hardware.controls = {}
    with open_source(f"camera:0?{SIZE}&fps=50") as source:
        assert source.read() is not None


def test_reader_times_out_and_may_ask_again(hardware):
    hardware.interval = 0.3
    with open_source(f"camera:0?{SIZE}&fps=50") as source:
        with pytest.raises(SourceTimeout, match=r"camera:0 gave no frame for 0\.02 s"):
            source.read(timeout=0.02)
        assert source.read(timeout=5) is not None


def test_camera_that_falls_silent_is_closed_and_can_be_opened_again(hardware):
    hardware.frames = 2
    source = open_source(f"camera:0?{SIZE}&fps=500&timeout=0.2")
    with pytest.raises(SourceTimeout, match=r"gave no frame for 0\.2 s: check its ribbon cable"):
        list(source)
    # Before anybody closes it, and although its capture was still queued.
    assert hardware.opened[0].closed
    assert hardware.opened[0].stopped == 1
    with pytest.raises(SourceTimeout):
        source.read()
    source.close()
    assert source.read() is None
    hardware.frames = None
    with open_source(f"camera:0?{SIZE}") as again:
        assert again.read() is not None


def test_close_does_not_wait_for_a_silent_camera(hardware):
    hardware.frames = 0
    source = open_source(f"camera:0?{SIZE}&timeout=60")
    reader = threading.Thread(target=source.read, args=(60,))
    reader.start()
    start = time.monotonic()
    source.close()
    reader.join(10)
    assert not reader.is_alive()
    assert until(lambda: hardware.opened[0].closed)
    assert time.monotonic() - start < 10
    source.close()


@pytest.mark.parametrize("silent", [False, True])
def test_nothing_holds_a_camera_that_was_closed(hardware, silent):
    """Else libcamera keeps it too, and its next user may get no frames."""
    hardware.controls = {}  # so that requests are skipped, which is another way to hold them
    source = open_source(f"camera:0?{SIZE}&fps=20&timeout=1.5")
    opened = weakref.ref(hardware.opened.pop())
    source.read()
    if silent:
        hardware.frames = 0
        with pytest.raises(SourceTimeout):
            list(source)
    source.close()
    assert until(lambda: gc.collect() >= 0 and opened() is None)
    assert source.closed


def test_failure_in_the_capture_thread_reaches_the_reader(hardware):
    def fail(_):
        raise RuntimeError("failed to find buffer")

    hardware.pixels = fail
    with open_source(f"camera:0?{SIZE}") as source, pytest.raises(SourceError) as caught:
        source.read()
    assert "camera:0 failed (RuntimeError: failed to find buffer)" in str(caught.value)
    assert until(lambda: hardware.opened[0].free_buffers == 3)


# ---- cameras that cannot be opened


def test_no_camera(hardware):
    hardware.cameras = []
    with pytest.raises(CameraMissing, match="no camera was found: check the ribbon cable"):
        open_source("camera:0")


def test_no_such_camera(hardware):
    with pytest.raises(CameraMissing, match=r"no camera:2: there is camera:0 \(imx708\)"):
        open_source("camera:2")


def test_busy_camera_names_who_has_it(hardware, monkeypatch):
    hardware.open_error = RuntimeError("Failed to acquire camera: Device or resource busy")
    found = [Holder(4711, "rpicam-vid", ("/dev/media0", "/dev/video0"))]
    monkeypatch.setattr(camera_module, "holders", lambda wanted: found)
    with pytest.raises(CameraBusy) as caught:
        open_source("camera:0")
    expected = "rpicam-vid (pid 4711) holds /dev/media0, /dev/video0: stop it first"
    assert str(caught.value) == f"camera:0 is busy: {expected}"


@pytest.mark.parametrize(
    ("node", "counts"),
    [("/dev/video0", True), ("/dev/media12", True), ("/dev/null", False), ("/dev/videos", False)],
)
def test_devices_that_count_as_a_camera(hardware, monkeypatch, node, counts):
    hardware.open_error = RuntimeError("busy")
    seen = []
    monkeypatch.setattr(camera_module, "holders", lambda wanted: seen.append(wanted) or [])
    with pytest.raises(CameraBusy, match="another process holds it"):
        open_source("camera:0")
    assert seen[0](node) is counts


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (RuntimeError("Could not open any dmaHeap device"), SourceError, "group video"),
        (OSError(12, "Cannot allocate memory"), SourceError, "buffers=2"),
        (RuntimeError("Invalid camera configuration: {}"), SourceError, "Invalid camera"),
        (IndexError("list index out of range"), CameraMissing, "any more"),
    ],
)
def test_errors_of_the_library(hardware, error, kind, words):
    # Closing fails too, as it does where there is no DMA heap; the first reason is the one to tell.
    hardware.configure_error, hardware.close_error = error, RuntimeError("second")
    with pytest.raises(kind) as caught:
        open_source("camera:0")
    assert words in str(caught.value)
    assert str(error.args[-1]) in str(caught.value)
    assert "second" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_format_that_nobody_reads(hardware):
    hardware.format = "MJPEG"
    with pytest.raises(SourceError, match=r"gives MJPEG.* open a USB camera as /dev/video0"):
        open_source("camera:0")
    assert hardware.opened[0].closed


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("camera:0?sise=640x480", "did you mean size"),
        ("camera:0?fps=0", "fps=0"),
        ("camera:0?buffers=1", "from 2 to 16"),
        ("camera:front", "give its number"),
        ("camera:-1", "give its number"),
    ],
)
def test_bad_uris(hardware, uri, words):
    with pytest.raises(InputError, match=words):
        open_source(uri)
    assert not hardware.opened


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'libcamera'"), "--system-site-packages"),
        (ValueError("numpy.dtype size changed, may indicate binary incompatibility"), "numpy<2"),
    ],
)
def test_picamera2_that_cannot_be_imported(monkeypatch, error, words):
    real = builtins.__import__

    def fail(name, *rest):
        if name == "picamera2":
            raise error
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "picamera2", raising=False)
    monkeypatch.setattr(camera_module, "import_module", fail)
    with pytest.raises(RuntimeUnavailable) as caught:
        open_source("camera:0")
    assert words in str(caught.value)
    assert str(error) in str(caught.value)


def test_libcamera_is_quiet_unless_the_user_wants_to_hear_it(hardware, monkeypatch):
    monkeypatch.setenv("LIBCAMERA_LOG_LEVELS", "*:DEBUG")
    open_source("camera:0").close()
    assert os.environ["LIBCAMERA_LOG_LEVELS"] == "*:DEBUG"
    monkeypatch.delenv("LIBCAMERA_LOG_LEVELS")
    open_source("camera:0").close()
    assert os.environ["LIBCAMERA_LOG_LEVELS"] == "*:ERROR"
