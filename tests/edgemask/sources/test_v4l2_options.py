"""USB cameras: what FFmpeg is asked for, and what is said when one cannot be opened or stops."""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemask.errors import CameraBusy, CameraMissing, SourceError
from edgemask.sources import open_source, v4l2

av = pytest.importorskip("av", reason="needs PyAV: pip install 'edgemask[video]'")


class Driver:
    """Stands for what reads the device: gives one frame, and then does as it is told."""

    end: Exception | None = None
    asked: tuple[str, dict[str, Any]]

    finite = False

    def __init__(self, url: str, name: str, **options: Any) -> None:
        self.name = name
        type(self).asked = url, options

    def frames(self) -> Any:
        frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8))
        frame.pts, frame.time_base = 1500, Fraction(1, 1000)
        yield frame
        if self.end is not None:
            raise self.end

    def close(self) -> None:
        pass


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.setattr(v4l2, "Reader", Driver)
    monkeypatch.setattr(v4l2, "_check_device", lambda device: None)
    monkeypatch.setattr(Driver, "end", None)
    return Driver


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", {"video_size": "640x480"}),
        ("?fps=7.5", {"video_size": "640x480", "framerate": "7.5"}),
        ("?fps=0.2", {"video_size": "640x480", "framerate": "0.2"}),
        ("?format=yuyv", {"video_size": "640x480", "input_format": "yuyv422"}),
        ("?format=mjpeg", {"video_size": "640x480", "input_format": "mjpeg"}),
        ("?format=h264&size=1280x720", {"video_size": "1280x720", "input_format": "h264"}),
    ],
)
def test_options_become_those_of_ffmpeg(driver, query, options):
    open_source(f"/dev/video3{query}").close()
    url, given = driver.asked
    assert url == "/dev/video3"
    assert given["options"] == options
    assert given["timeout"] == 5


def test_frames_are_named_after_the_device(driver):
    with open_source("/dev/v4l/by-id/usb-cam-index0") as source:
        frame = source.read()
    assert frame.name == "usb-cam-index0-000000"
    assert frame.sensor_ns == 1_500_000_000


@pytest.mark.parametrize("plugged", [True, False])
def test_camera_that_breaks_off(driver, monkeypatch, tmp_path, plugged):
    device = tmp_path / "video0"
    if plugged:
        device.touch()
    monkeypatch.setattr(driver, "end", SourceError("the bus failed"))
    with v4l2.V4l2Camera(str(device)) as source, pytest.raises(SourceError) as caught:
        list(source)
    if plugged:
        assert type(caught.value) is SourceError
        assert str(caught.value) == "the bus failed"
    else:
        assert type(caught.value) is CameraMissing
        assert f"v4l2:{device} has been unplugged: plug it in" in str(caught.value)


def fail_to_open(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, "reason")

    monkeypatch.setattr(v4l2, "open", fail, raising=False)


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ENXIO])
def test_node_without_a_camera(monkeypatch, code):
    fail_to_open(monkeypatch, code)
    with pytest.raises(CameraMissing, match="there is no camera behind /dev/video0: plug it in"):
        open_source("/dev/video0")


def test_holders_are_looked_for_by_the_real_name_of_the_device(monkeypatch, tmp_path):
    # /dev/v4l/by-id has links, and /proc tells what they lead to.
    node, link = tmp_path / "video0", tmp_path / "usb-cam-index0"
    node.touch()
    link.symlink_to(node)
    fail_to_open(monkeypatch, errno.EBUSY)
    seen = []
    monkeypatch.setattr(v4l2, "holders", lambda wanted: seen.append(wanted) or [])
    with pytest.raises(CameraBusy, match=f"{link} is busy"):
        v4l2.V4l2Camera(str(link))
    (wanted,) = seen
    assert wanted(str(node.resolve()))
    assert not wanted(str(link))


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([], "there is no /dev/video*"),
        (["video0"], "there is /dev/video0"),
        (["video10", "video0", "video-decoder"], "there is /dev/video0, /dev/video10"),
    ],
)
def test_other_cameras_are_named_where_one_is_missing(monkeypatch, nodes, words):
    fail_to_open(monkeypatch, errno.ENOENT)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", lambda self, pattern: [self / node for node in nodes])
        with pytest.raises(CameraMissing) as caught:
            open_source("/dev/video7")
    assert str(caught.value) == f"there is no /dev/video7: plug the camera in, {words}"
