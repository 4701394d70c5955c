"""A picamera2 that needs no camera, with the manners of the real one that a program must survive.

What it copies was read in the source of picamera2 0.3.38 and seen on libcamera's virtual camera:

- a capture waits for ever unless ``wait`` is a number; then it raises TimeoutError, stays queued,
  and so hands the next frame to nobody, whose buffer is lost;
- a request that is not released keeps its buffer, and without a free buffer there are no frames;
- releasing a request once too often raises RuntimeError;
- stop() waits behind every capture that is still queued;
- a camera may give another format, size and stride than it was asked for;
- an error of __init__ says nothing; its cause does.

The camera leg compares the signatures with those of the real module.
"""

from __future__ import annotations

import concurrent.futures
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

TimeoutError = concurrent.futures.TimeoutError

SMPTE170M = SimpleNamespace(
    ycbcrEncoding=SimpleNamespace(name="Rec601"), range=SimpleNamespace(name="Limited")
)


@dataclass
class Hardware:
    """What is plugged in; the tests change it.

    `pixels(n)` returns the buffer of frame n. `frames` is how many the sensor gives before it falls
    silent, None for no end.
    """

    cameras: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"Model": "imx708", "Location": 2, "Rotation": 180, "Id": "/base/i2c/imx708", "Num": 0}
        ]
    )
    properties: dict[str, Any] = field(default_factory=lambda: {"PixelArraySize": (4608, 2592)})
    controls: dict[str, Any] = field(
        default_factory=lambda: {"FrameDurationLimits": (17000, 1_000_000, 33333)}
    )
    format: str | None = None
    padding: int = 0
    colour_space: Any = field(default_factory=lambda: SMPTE170M)
    interval: float = 0.005
    frames: int | None = None
    pixels: Callable[[int], NDArray[np.uint8]] | None = None
    open_error: Exception | None = None
    configure_error: Exception | None = None
    close_error: Exception | None = None
    opened: list[Picamera2] = field(default_factory=list)


class CompletedRequest:
    """One frame, which holds one of the camera's buffers until it is released."""

    def __init__(self, request: Any, picam2: Picamera2) -> None:
        self.request, self.picam2 = request, picam2
        self.ref_count = 1

    def acquire(self) -> None:
        with self.picam2.lock:
            if self.ref_count == 0:
                raise RuntimeError("CompletedRequest: acquiring lock with ref_count 0")
            self.ref_count += 1

    def release(self) -> None:
        with self.picam2.lock:
            self.ref_count -= 1
            if self.ref_count < 0:
                raise RuntimeError("CompletedRequest: lock now has negative ref_count")
            if self.ref_count == 0:
                self.picam2.free_buffers += 1
                self.request = None

    def get_metadata(self) -> dict[str, Any]:
        assert self.request is not None, "released already"
        return {"SensorTimestamp": 1_000_000_000 + self.request * 66_666_667}

    def make_buffer(self, name: str) -> NDArray[np.uint8]:
        assert self.request is not None, "released already"
        assert name == "main"
        pixels = self.picam2.hardware.pixels
        stream = self.picam2.stream_configuration(name)
        if pixels is not None:
            return pixels(self.request)
        return np.full(stream["framesize"], self.request % 256, np.uint8)


class Picamera2:
    """One camera of `hardware`."""

    hardware = Hardware()

    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        return list(Picamera2.hardware.cameras)

    def __init__(
        self,
        camera_num: int = 0,
        verbose_console: Any = None,
        tuning: Any = None,
        allocator: Any = None,
    ) -> None:
        if self.hardware.open_error is not None:
            error = RuntimeError("Camera __init__ sequence did not complete.")
            raise error from self.hardware.open_error
        if camera_num >= len(self.hardware.cameras):
            raise RuntimeError(f"No camera number {camera_num} found")
        self.lock = threading.RLock()
        self.started = self.closed = False
        self.free_buffers = self.stalls = self.stopped = 0
        self._jobs: list[concurrent.futures.Future[CompletedRequest]] = []
        self._config: dict[str, Any] = {}
        self.camera_properties = dict(self.hardware.properties)
        self.camera_controls = dict(self.hardware.controls)
        self.hardware.opened.append(self)

    @property
    def sensor_modes(self) -> list[dict[str, Any]]:
        raise AssertionError("sensor_modes reconfigures the camera through all its modes")

    def create_video_configuration(
        self,
        main: Any = {},  # noqa: B006 (as in the real one)
        lores: Any = None,
        raw: Any = {},  # noqa: B006
        transform: Any = "identity",
        colour_space: Any = None,
        buffer_count: int = 6,
        controls: Any = {},  # noqa: B006
        display: Any = "main",
        encode: Any = "main",
        queue: bool = True,
        sensor: Any = {},  # noqa: B006
        use_case: str = "video",
    ) -> dict[str, Any]:
        for name in controls:
            if name not in self.camera_controls:
                raise RuntimeError(f"Control {name} is not advertised by libcamera")
        return {
            "main": {"format": "XBGR8888", "size": (1280, 720), **main},
            "lores": lores,
            "raw": raw,
            "transform": transform,
            "colour_space": colour_space or self.hardware.colour_space,
            "buffer_count": buffer_count,
            "controls": controls,
            "display": display,
            "encode": encode,
            "queue": queue,
            "sensor": sensor,
            "use_case": use_case,
        }

    def configure(self, camera_config: Any = None) -> None:
        if self.hardware.configure_error is not None:
            raise self.hardware.configure_error
        config = dict(camera_config)
        main = dict(config["main"])
        main["format"] = self.hardware.format or main["format"]
        width, height = main["size"]
        bytes_each = {"BGR888": 3, "RGB888": 3, "XBGR8888": 4, "XRGB8888": 4, "YUYV": 2}
        main["stride"] = width * bytes_each.get(main["format"], 1) + self.hardware.padding
        rows = height if main["format"] in bytes_each else height * 3 // 2
        main["framesize"] = main["stride"] * rows
        self._config = {**config, "main": main}
        self.free_buffers = config["buffer_count"]

    def camera_configuration(self) -> dict[str, Any]:
        return self._config

    def stream_configuration(self, name: str = "main") -> dict[str, Any]:
        stream: dict[str, Any] = self._config[name]
        return stream

    def start(self, config: Any = None, show_preview: Any = False) -> None:
        if not self._config:
            raise RuntimeError("Camera has not been configured")
        self.started = True
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        number = 0
        while self.started:
            time.sleep(self.hardware.interval)
            if self.hardware.frames is not None and number >= self.hardware.frames:
                continue
            with self.lock:
                if not self.free_buffers:
                    self.stalls += 1
                    continue
                self.free_buffers -= 1
                request = CompletedRequest(number, self)
                number += 1
                if self._jobs:
                    self._jobs.pop(0).set_result(request)
                else:
                    request.release()

    def capture_request(
        self, wait: Any = None, signal_function: Any = None, flush: Any = None
    ) -> CompletedRequest:
        assert isinstance(wait, int | float), "this would wait for ever for a camera that is dead"
        assert wait is not True
        job: concurrent.futures.Future[CompletedRequest] = concurrent.futures.Future()
        with self.lock:
            self._jobs.append(job)
        return job.result(timeout=wait)

    def cancel_all_and_flush(self) -> None:
        with self.lock:
            for job in self._jobs:
                job.set_exception(concurrent.futures.CancelledError())
            self._jobs = []

    def set_controls(self, controls: Any) -> None:
        self.camera_controls.update(controls)

    def stop(self) -> None:
        assert not self._jobs, "this would wait for ever behind a capture that timed out"
        self.started = False
        self.stopped += 1

    def close(self) -> None:
        if self.hardware.close_error is not None:
            raise self.hardware.close_error
        self.started = False
        self.closed = True


def install(monkeypatch: Any) -> Hardware:
    """Put the fake in the place of picamera2 and libcamera; return its hardware."""
    module, libcamera = ModuleType("picamera2"), ModuleType("libcamera")
    hardware = Hardware()
    monkeypatch.setattr(Picamera2, "hardware", hardware)
    module.Picamera2 = Picamera2  # type: ignore[attr-defined]
    libcamera.Transform = lambda **flips: ("transform", flips)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    return hardware
