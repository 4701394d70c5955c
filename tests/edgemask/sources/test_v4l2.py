"""USB cameras: what the system says about one, since the tests have none."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from edgemask.errors import CameraBusy, CameraMissing, SourceError
from edgemask.sources import open_source, v4l2
from edgemask.sources.holders import Holder

av = pytest.importorskip("av", reason="needs PyAV: pip install 'edgemask[video]'")


def open_fails(monkeypatch, code: int) -> None:
    def fail(*_, **__):
        raise av.error.OSError(code, "reason", "/dev/video0")

    monkeypatch.setattr(v4l2, "_check_device", lambda device: None)
    monkeypatch.setattr(av, "open", fail)


def test_busy_usb_camera(monkeypatch):
    open_fails(monkeypatch, errno.EBUSY)
    found = [Holder(12, "cheese", ("/dev/video0",))]
    monkeypatch.setattr(v4l2, "holders", lambda wanted: found if wanted("/dev/video0") else [])
    with pytest.raises(CameraBusy, match=r"cheese \(pid 12\) holds /dev/video0: stop it first"):
        open_source("/dev/video0")


def test_usb_camera_that_fails_otherwise(monkeypatch):
    open_fails(monkeypatch, errno.EIO)
    with pytest.raises(SourceError, match=r"v4l2:/dev/video0 cannot be read"):
        open_source("v4l2:/dev/video0?fps=30")


def test_scheme_in_capitals():
    with pytest.raises(CameraMissing, match="there is no /dev/video99"):
        open_source("V4L2:/dev/video99?fps=30")


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.ENOENT, CameraMissing, "plug the camera in"),
        (errno.ENODEV, CameraMissing, "no camera behind"),
        (errno.EACCES, SourceError, "group video"),
        (errno.EBUSY, CameraBusy, "is busy"),
        (errno.EIO, SourceError, "is it a camera"),
    ],
)
def test_device_that_cannot_be_opened(monkeypatch, code, kind, words):
    def fail(*_, **__):
        raise OSError(code, "reason")

    monkeypatch.setattr("builtins.open", fail)
    with pytest.raises(kind, match=words) as caught:
        v4l2.V4l2Camera("/dev/video0")
    monkeypatch.undo()
    assert type(caught.value) is kind


@pytest.mark.parametrize("plugged", [True, False])
def test_usb_camera_that_stops(monkeypatch, tmp_path, plugged):
    """A film in the camera's place: it ends, as an unplugged camera does."""
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    device = tmp_path / "video0"
    device.write_bytes(b"")
    real = av.open
    asked = {}

    def opened(path, **options):
        asked.update(options, path=path)
        return real(str(tmp_path / "film.mp4"))

    monkeypatch.setattr(av, "open", opened)
    monkeypatch.setattr(v4l2, "_check_device", lambda device: None)
    camera = v4l2.V4l2Camera(str(device), size=(320, 240), fps=15, format="mjpeg", timeout=3)
    if not plugged:
        device.unlink()
    with camera as source, pytest.raises(CameraMissing, match="plug it in"):
        list(source)
    assert asked["format"] == "v4l2"
    assert asked["timeout"] == 3
    assert asked["options"] == {
        "video_size": "320x240", "framerate": "15", "input_format": "mjpeg",
    }  # fmt: skip
