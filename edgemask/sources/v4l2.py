"""USB cameras and whatever else has a V4L2 device, through PyAV."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

from edgemask.errors import CameraBusy, CameraMissing, SourceError, SourceTimeout
from edgemask.sources.holders import describe_holders, holders
from edgemask.sources.uri import Parsers, fraction, size, word
from edgemask.sources.video import LiveReader, Reader, import_av

__all__ = ["OPTIONS", "V4l2Camera"]

OPTIONS: Parsers = {
    "size": size,
    "fps": fraction(0.01, 1000),
    "format": word("yuyv", "mjpeg", "h264"),
    "timeout": fraction(0.1, 600),
}

_FFMPEG_FORMATS = {"yuyv": "yuyv422", "mjpeg": "mjpeg", "h264": "h264"}


class V4l2Camera(LiveReader):
    """A USB camera, or anything else with a video device.

    Parameters
    ----------
    device : str
        ``/dev/video0``, or better a name in ``/dev/v4l/by-id``, which does not change.
    size : (int, int)
        Width and height; the driver takes the nearest it knows.
    fps : float, optional
        What the camera gives by itself if left out.
    format : {'yuyv', 'mjpeg', 'h264'}, optional
        What the camera sends. Large sizes need mjpeg, for which USB is fast enough.
    timeout : float
        Seconds without a frame after which the camera is given up.
    """

    def __init__(
        self,
        device: str,
        *,
        size: tuple[int, int] = (640, 480),
        fps: float | None = None,
        format: str | None = None,
        timeout: float = 5.0,
    ) -> None:
        import_av()
        _check_device(device)
        options = {"video_size": f"{size[0]}x{size[1]}"}
        if fps is not None:
            options["framerate"] = f"{fps:g}"
        if format is not None:
            options["input_format"] = _FFMPEG_FORMATS[format]
        self._device = device
        name = f"v4l2:{device}"
        try:
            reader = Reader(device, name, format="v4l2", options=options, timeout=timeout)
        except SourceError as error:
            if error.errno == errno.EBUSY:
                raise _busy(device) from None
            raise
        super().__init__(reader, Path(device).name)

    def _fetch(self) -> tuple[Any, int | None] | None:
        try:
            fetched = super()._fetch()
        except SourceTimeout:
            raise
        except SourceError as error:
            if Path(self._device).exists():
                raise
            raise CameraMissing(
                f"{self.name} has been unplugged: plug it in and open it again"
            ) from error
        if fetched is None:
            raise CameraMissing(f"{self.name} gives no more frames: plug it in and open it again")
        return fetched


def _check_device(device: str) -> None:
    """Open and close a device, since FFmpeg does not tell why it could not."""
    try:
        with open(device, "rb", buffering=0):
            pass
    except FileNotFoundError:
        raise CameraMissing(f"there is no {device}: plug the camera in, {_listed()}") from None
    except PermissionError:
        raise SourceError(
            f"{device} may not be read: add the user to the group video (sudo usermod -aG video "
            "$USER) and log in again"
        ) from None
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO):
            raise CameraMissing(f"there is no camera behind {device}: plug it in") from None
        if error.errno != errno.EBUSY:
            raise SourceError(
                f"{device} cannot be opened ({error.strerror}): is it a camera?"
            ) from None
        raise _busy(device) from None


def _busy(device: str) -> CameraBusy:
    node = str(Path(device).resolve())
    found = describe_holders(holders(lambda path: path == node))
    return CameraBusy(f"{device} is busy: {found}")


def _listed() -> str:
    found = sorted(
        f"/dev/{path.name}"
        for path in Path("/dev").glob("video*")
        if re.fullmatch(r"video\d+", path.name)
    )
    return f"there is {', '.join(found)}" if found else "there is no /dev/video*"
