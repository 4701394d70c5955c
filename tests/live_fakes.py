"""Sources, segmenters and boards that tests of the live parts control."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from synthetic import make_instances

from edgemask.errors import SourceTimeout
from edgemask.instances import Instances
from edgemask.live.board import Board, Throttled


@dataclass(frozen=True)
class FakeFrame:
    """What a source gives; the top left pixel holds the frame's number."""

    rgb: Any
    index: int
    sensor_ns: int | None
    wall_ns: int
    name: str
    path: Path | None = None


def frame(index: int, height: int = 48, width: int = 64) -> FakeFrame:
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = index % 256
    return FakeFrame(rgb, index, None, time.time_ns(), f"camera-{index:06d}")


class FakeSource:
    """Plays a script: a number is a pause, an exception is raised, None is the end.

    After the script a live source gives a frame every `every` seconds, any other ends.
    """

    def __init__(
        self,
        script: Iterable[Any] = (),
        *,
        live: bool = True,
        frames: int | None = None,
        every: float = 0.005,
    ) -> None:
        self.name, self.live, self.length = "fake", live, None
        self._script = list(script)
        self._left = frames
        self._every = every
        self._index = 0
        self._next = time.monotonic()
        self._wake = threading.Event()

    def read(self, timeout: float = 5.0) -> FakeFrame | None:
        while self._script:
            step = self._script.pop(0)
            if isinstance(step, BaseException):
                raise step
            if step is None:
                return None
            if step > timeout:
                self._wake.wait(timeout)
                raise SourceTimeout("fake gave no frame")
            self._wake.wait(step)
        if self._wake.is_set() or self._left == 0:
            return None
        if self.live:
            now = time.monotonic()
            missed = max(0, int((now - self._next) / self._every))
            self._index += missed
            self._next = max(self._next + self._every * (missed + 1), now)
            self._wake.wait(self._next - now)
        if self._left is not None:
            self._left -= 1
        self._index += 1
        return frame(self._index - 1)

    def close(self) -> None:
        self._wake.set()

    @property
    def closed(self) -> bool:
        return self._wake.is_set()


class Opener:
    """Opens what it is given, one a call: a source, or an exception to raise; the last for ever."""

    def __init__(self, *steps: Callable[[], FakeSource] | Exception) -> None:
        self._steps = list(steps)
        self.calls: list[float] = []
        self.sources: list[FakeSource] = []

    def now(self, *steps: Callable[[], FakeSource] | Exception) -> None:
        """Open these from now on."""
        self._steps = list(steps)

    def __call__(self) -> Any:
        self.calls.append(time.monotonic())
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, Exception):
            raise step
        self.sources.append(step())
        return self.sources[-1]


@dataclass
class SlowSegmenter:
    """Finds one instance whose area is the frame's number, after some time."""

    seconds: float = 0.0
    fail_on: Callable[[int], bool] = lambda number: False
    score_threshold: float = 0.5
    max_detections: int = 20
    short_side: int | None = None
    max_proposals: int | None = None
    name: str = "fake"
    own_short_side: int = 320
    timings: dict[str, float] = field(default_factory=lambda: {"backbone": 1.0, "total": 2.0})
    seen: list[tuple[int, int, int | None]] = field(default_factory=list)

    @property
    def pack(self) -> Any:
        return SimpleNamespace(
            name=self.name,
            version="1",
            sha256="0" * 64,
            input={"stride": 32, "short_side": self.own_short_side},
            rpn={"post_nms": 50},
        )

    def __call__(self, rgb: Any) -> Instances:
        number = int(rgb[0, 0, 0])
        self.seen.append((number, self.max_detections, self.short_side))
        time.sleep(self.seconds)
        if self.fail_on(number):
            raise RuntimeError("the network failed")
        mask = np.zeros((1, *rgb.shape[:2]), bool)
        mask[0, 5:25, 10:40] = True
        return make_instances(mask, np.array([0.9]))


class FakeBoard:
    """A board whose temperature a test sets."""

    def __init__(self, temperature_c: float | None = 50.0, bits: int | None = 0) -> None:
        self.temperature_c, self.bits = temperature_c, bits
        self.reads = 0

    def __call__(self) -> Board:
        self.reads += 1
        throttled = None if self.bits is None else Throttled(self.bits)
        return Board(
            "Raspberry Pi 4 Model B Rev 1.5", self.temperature_c, throttled,
            4 << 30, 3 << 30, 4, "ondemand", 1800.0,
        )  # fmt: skip


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until a condition holds and return its value.

    Fails after some seconds, so many that a machine with other work to do does not look like a
    fault.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return value


def clients() -> int:
    """Count the connections that the web server serves at this moment."""
    return sum(thread.name == "edgemask-client" for thread in threading.enumerate())


def parts(response: http.client.HTTPResponse, count: int) -> list[bytes]:
    """Return the first parts of a multipart stream, by the rules of RFC 2046."""
    boundary = response.headers.get_boundary()
    assert boundary
    delimiter = b"--" + boundary.encode()
    assert response.readline() == delimiter + b"\r\n"
    found = []
    for _ in range(count):
        assert http.client.parse_headers(response).get_content_type() == "image/jpeg"
        content = b""
        while not content.endswith(b"\r\n" + delimiter + b"\r\n"):
            content += response.readline()
        found.append(content[: -len(delimiter) - 4])
    return found
