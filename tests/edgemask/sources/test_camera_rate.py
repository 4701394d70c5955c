"""How often the Pi camera gives a frame, and what it says about each, by a clock of the tests."""

from __future__ import annotations

import time
import types

import fake_picamera2
import numpy as np
import pytest
from live_fakes import until

from edgemask.sources import camera as camera_module
from edgemask.sources import open_source

SIZE = "size=64x48"
SENSOR = 1 / 30  # seconds from one frame to the next


@pytest.fixture
def hardware(monkeypatch):
    return fake_picamera2.install(monkeypatch)


class Clock:
    """Advances by one frame of the sensor whenever it is looked at, and sometimes by a pause."""

    def __init__(self, pauses: dict[int, float]) -> None:
        self.looks, self.now = 0, 0.0
        self._pauses = pauses

    def monotonic(self) -> float:
        self.looks += 1
        self.now += SENSOR + self._pauses.get(self.looks, 0.0)
        return self.now


@pytest.mark.parametrize("fps", [10, 15, 20])
@pytest.mark.parametrize("pauses", [{}, {31: 60.0}])
def test_frames_of_a_fast_sensor_are_thinned_evenly(hardware, monkeypatch, fps, pauses):
    """20 of 30 frames a second are two of three, not one of two, and no more after a pause."""
    clock = Clock(pauses)
    monkeypatch.setattr(camera_module, "time", clock)
    taken: list[int] = []

    def pixels(_):
        taken.append(clock.looks)
        return np.zeros(64 * 48 * 3, np.uint8)

    hardware.controls, hardware.pixels, hardware.interval = {}, pixels, 0.0005
    with open_source(f"camera:0?{SIZE}&fps={fps}"):
        until(lambda: clock.looks > 100)
    for start in (5, 35, 65):
        count = sum(start < look <= start + 30 for look in taken)
        assert abs(count - fps) <= 1


def test_a_camera_that_can_be_that_slow_is_left_to_itself(hardware):
    # The camera of the tests does not obey, so nothing may be taken out on top.
    hardware.controls = {"FrameDurationLimits": (17000, 1_000_000, 33333)}
    with open_source(f"camera:0?{SIZE}&fps=1") as source:
        source.read()
        start = time.monotonic()
        for _ in range(3):
            source.read()
        assert time.monotonic() - start < 1.5


@pytest.mark.parametrize(("fps", "duration"), [(15, 66_667), (60, 16_667), (24, 41_667)])
def test_frame_duration_is_rounded(hardware, fps, duration):
    with open_source(f"camera:0?{SIZE}&fps={fps}"):
        config = hardware.opened[0].camera_configuration()
    assert config["controls"] == {"FrameDurationLimits": (duration, duration)}


def test_no_frame_is_kept_back_for_a_window_or_an_encoder(hardware):
    with open_source(f"camera:0?{SIZE}"):
        config = hardware.opened[0].camera_configuration()
    assert (config["display"], config["encode"]) == (None, None)


def test_close_between_two_frames_of_a_slow_camera(hardware, monkeypatch):
    """No capture waits at that moment that could be cancelled, and the next frame is early."""
    cancel, calls = fake_picamera2.Picamera2.cancel_all_and_flush, []

    def cancel_too_early(self):
        calls.append(1)
        if len(calls) > 1:
            cancel(self)

    monkeypatch.setattr(fake_picamera2.Picamera2, "cancel_all_and_flush", cancel_too_early)
    hardware.controls = {}
    source = open_source(f"camera:0?{SIZE}&fps=0.05")
    assert source.read() is not None
    source.close()
    assert hardware.opened[0].closed


def test_size_is_the_one_that_the_camera_gives(hardware, monkeypatch):
    configure = fake_picamera2.Picamera2.configure

    def configure_smaller(self, config):
        configure(self, {**config, "main": {**config["main"], "size": (32, 24)}})

    monkeypatch.setattr(fake_picamera2.Picamera2, "configure", configure_smaller)
    with open_source(f"camera:0?{SIZE}") as source:
        assert source.read().rgb.shape == (24, 32, 3)


def test_camera_that_does_not_say_when(hardware, monkeypatch):
    monkeypatch.setattr(fake_picamera2.CompletedRequest, "get_metadata", lambda self: {})
    with open_source(f"camera:0?{SIZE}") as source:
        assert source.read().sensor_ns is None


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (None, ("bt601", False)),
        (types.SimpleNamespace(), ("bt601", False)),
        (types.SimpleNamespace(range=types.SimpleNamespace(name="Full")), ("bt601", True)),
    ],
)
def test_colour_space_that_says_little(hardware, space, expected):
    hardware.format, hardware.colour_space = "NV12", space
    with open_source(f"camera:0?{SIZE}") as source:
        assert (source.layout.matrix, source.layout.full_range) == expected
