"""Cameras that libcamera drives, through picamera2: the Raspberry Pi's own, and many others.

This module alone opens cameras with picamera2; `edgemask.doctor.probe` imports it only to list
them. What this module guards against was read in the source of picamera2 0.3.38: a capture waits
for ever unless it is told otherwise, a request that is not released stalls the camera, a capture
that timed out stays queued and would take a request that nobody releases, and asking for
`sensor_modes` reconfigures the camera through all of them, for which a board with little contiguous
memory has no room.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import re
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from edgemask.errors import (
    CameraBusy,
    CameraMissing,
    RuntimeUnavailable,
    SourceError,
    SourceTimeout,
)
from edgemask.sources.base import LiveSource, Pixels
from edgemask.sources.colour import FORMATS, Layout, to_rgb
from edgemask.sources.holders import describe_holders, holders
from edgemask.sources.uri import Parsers, fraction, natural, size, switch

__all__ = ["OPTIONS", "PiCamera"]

OPTIONS: Parsers = {
    "size": size,
    "fps": fraction(0.01, 1000),
    "buffers": natural(2, 16),
    "sensor": size,
    "hflip": switch,
    "vflip": switch,
    "timeout": fraction(0.1, 600),
}

_SILENT = logging.NullHandler()
_STREAM = "main"
# Red, green, blue in memory; the ISP makes it for nothing, where NumPy would take milliseconds.
_WANTED_FORMAT = "BGR888"
_MATRICES = {"Rec601": "bt601", "Rec709": "bt709", "Rec2020": "bt2020"}


class PiCamera(LiveSource[Any]):
    """One camera of libcamera.

    Parameters
    ----------
    number : int
        As ``rpicam-hello --list-cameras`` counts; USB cameras come last.
    size : (int, int)
        Width and height in pixels.
    fps : float
    buffers : int
        Frames in flight. Each costs width x height x 3 bytes of contiguous memory (CMA).
    sensor : (int, int), optional
        Size of the sensor's mode. By default half the sensor's width and height, which on the usual
        sensors is the mode that sees the whole field of view; without it a small `size` would make
        libcamera choose a mode that sees the middle only.
    hflip, vflip : bool
        Mirror the picture; both turn it by 180 degrees.
    timeout : float
        Seconds without a frame after which the camera is given up.

    Raises
    ------
    CameraMissing
        There is no such camera.
    CameraBusy
        Another process has it.
    RuntimeUnavailable
        picamera2 cannot be imported.
    SourceError
        The camera cannot be configured.
    """

    def __init__(
        self,
        number: int = 0,
        *,
        size: tuple[int, int] = (640, 480),
        fps: float = 15.0,
        buffers: int = 3,
        sensor: tuple[int, int] | None = None,
        hflip: bool = False,
        vflip: bool = False,
        timeout: float = 5.0,
    ) -> None:
        super().__init__(f"camera:{number}", "camera")
        self._timeout = timeout
        self._camera: Any = _open(number, self.name)
        try:
            self._layout, self._interval = self._configure(size, fps, buffers, sensor, hflip, vflip)
            self._camera.start()
        except BaseException as error:
            # Closing can fail for the same reason as opening did; that reason is the one to tell.
            with contextlib.suppress(Exception):
                self._shut_down()
            if isinstance(error, SourceError) or not isinstance(error, Exception):
                raise
            raise _problem(error, self.name) from error
        self._due = time.monotonic()
        self.start()

    @property
    def layout(self) -> Layout:
        """The format that the camera really gives."""
        return self._layout

    def _configure(
        self,
        size: tuple[int, int],
        fps: float,
        buffers: int,
        sensor: tuple[int, int] | None,
        hflip: bool,
        vflip: bool,
    ) -> tuple[Layout, float]:
        """Configure the camera; return the layout and the seconds that frames must be apart."""
        camera = self._camera
        options: dict[str, Any] = {
            "main": {"size": size, "format": _WANTED_FORMAT},
            "raw": None,  # or else a second, larger set of buffers
            "buffer_count": buffers,
            "queue": False,  # a request begins its life after it was asked for
            "display": None,
            "encode": None,
        }
        if hflip or vflip:
            transform = import_module("libcamera").Transform
            options["transform"] = transform(hflip=hflip, vflip=vflip)
        pixels = camera.camera_properties.get("PixelArraySize")
        if sensor is None and pixels is not None:
            sensor = (pixels[0] // 2, pixels[1] // 2)
        if sensor is not None:
            options["sensor"] = {"output_size": sensor}
        duration = round(1e6 / fps)  # microseconds
        if "FrameDurationLimits" in camera.camera_controls:
            options["controls"] = {"FrameDurationLimits": (duration, duration)}
        camera.configure(camera.create_video_configuration(**options))
        stream = camera.stream_configuration(_STREAM)
        if stream["format"] not in FORMATS:
            raise SourceError(
                f"{self.name} gives {stream['format']}, which edgemask does not read: open a USB "
                "camera as /dev/video0 instead"
            )
        matrix, full_range = _colours(camera.camera_configuration())
        width, height = stream["size"]
        layout = Layout(stream["format"], width, height, stream["stride"], matrix, full_range)
        # Where the camera cannot be that slow, frames in excess are let go uncopied.
        slowest = camera.camera_controls.get("FrameDurationLimits", (0, 0))[1]
        return layout, 0.0 if duration <= slowest else 1 / fps

    def _fetch(self) -> tuple[Any, int | None]:
        while True:
            request = self._next_request()
            try:
                now = time.monotonic()
                if now < self._due and not self._stop.is_set():
                    continue
                self._due = max(self._due, now - self._interval) + self._interval
                sensor_ns = request.get_metadata().get("SensorTimestamp")
                return request.make_buffer(_STREAM), sensor_ns
            finally:
                request.release()

    def _next_request(self) -> Any:
        try:
            return self._camera.capture_request(wait=self._timeout)
        except concurrent.futures.CancelledError as error:
            problem = SourceError(f"{self.name} was closed")
            error.__traceback__ = None
        except concurrent.futures.TimeoutError as error:
            problem = SourceTimeout(
                f"{self.name} gave no frame for {self._timeout:g} s: check its ribbon cable and "
                "power, then open it again"
            )
            error.__traceback__ = None
        # Not while those are handled: their tracebacks hold picamera2 and its buffers, which would
        # then be freed at some later time, when the camera may have been opened again.
        raise problem

    def _convert(self, raw: Any) -> Pixels:
        return to_rgb(raw, self._layout)

    def _interrupt(self) -> None:
        self._camera.cancel_all_and_flush()

    def _shut_down(self) -> None:
        camera, self._camera = self._camera, None
        # First: stop() would wait for ever behind a capture that timed out.
        camera.cancel_all_and_flush()
        camera.stop()
        camera.close()


def _open(number: int, name: str) -> Any:
    """Return the opened Picamera2."""
    picamera2 = _import()
    try:
        found = picamera2.global_camera_info()
    except Exception as error:
        raise _problem(error, name) from error
    if number >= len(found):
        if not found:
            raise CameraMissing(
                "no camera was found: check the ribbon cable with the power off, then run "
                "rpicam-hello --list-cameras"
            )
        listed = ", ".join(
            f"camera:{n} ({info.get('Model', 'unknown')})" for n, info in enumerate(found)
        )
        raise CameraMissing(f"there is no {name}: there is {listed}")
    try:
        return picamera2(number)
    except Exception as error:
        raise _problem(error, name) from error


def _import() -> Any:
    """Import picamera2, or say what keeps this Python from it."""
    # libcamera tells its life's story on stderr; who wants to read it sets this.
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:ERROR")
    # Its errors arrive as exceptions; an application that sets up logging still gets the records.
    logging.getLogger("picamera2").addHandler(_SILENT)  # the same one, however often
    try:
        return import_module("picamera2").Picamera2
    except ImportError as error:
        raise RuntimeUnavailable(
            f"picamera2 cannot be imported ({error}): sudo apt install python3-picamera2, and make "
            "the environment with the system's Python: python3 -m venv --system-site-packages"
        ) from error
    except ValueError as error:  # numpy.dtype size changed
        raise RuntimeUnavailable(
            f"picamera2 cannot be imported ({error}): its libraries are built for another NumPy; "
            "pip install 'numpy<2' in this environment"
        ) from error


def _colours(configuration: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the matrix, and whether luma has the full range, of a configuration."""
    space = configuration.get("colour_space")
    encoding = getattr(getattr(space, "ycbcrEncoding", None), "name", "")
    value_range = getattr(getattr(space, "range", None), "name", "Limited")
    return _MATRICES.get(encoding, "bt601"), value_range == "Full"


def _problem(error: BaseException, name: str) -> SourceError:
    """Return the error that stands for what libcamera or picamera2 raised."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 8:
        chain.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    told = "; ".join(dict.fromkeys(part for part in chain if part))
    if re.search(r"busy|failed to acquire|\bin use\b", told, re.IGNORECASE):
        found = holders(lambda node: re.match(r"/dev/(video|media)\d", node) is not None)
        return CameraBusy(f"{name} is busy: {describe_holders(found)}")
    if re.search(r"no camera number|index out of range|no such device", told, re.IGNORECASE):
        return CameraMissing(f"there is no {name} any more ({told}): check its cable")
    if "dmaheap" in told.lower():
        return SourceError(
            f"{name} cannot be opened ({told}): add the user to the group video (sudo usermod -aG "
            "video $USER) and log in again"
        )
    if re.search(r"cannot allocate|out of memory|ENOMEM", told, re.IGNORECASE):
        return SourceError(
            f"{name} has no room for its buffers ({told}): choose a smaller size or buffers=2, or "
            "give the board more contiguous memory (CMA)"
        )
    return SourceError(
        f"{name} cannot be opened ({told or type(error).__name__}): try rpicam-hello first"
    )
