"""What is said, and what is given back, when libcamera or picamera2 refuses the Pi camera."""

from __future__ import annotations

import io
import logging

import fake_picamera2
import pytest

from edgemask.errors import CameraBusy, CameraMissing, SourceError
from edgemask.sources import camera as camera_module
from edgemask.sources import open_source


@pytest.fixture
def hardware(monkeypatch):
    monkeypatch.setattr(camera_module, "holders", lambda wanted: [])
    return fake_picamera2.install(monkeypatch)


@pytest.mark.parametrize(
    ("told", "kind", "words"),
    [
        ("Failed to acquire camera", CameraBusy, "is busy: another process holds it"),
        ("Camera In Use", CameraBusy, "is busy: another process holds it"),
        ("Failed in userspace", SourceError, "try rpicam-hello first"),
        ("Device or resource BUSY", CameraBusy, "is busy: another process holds it"),
        ("No camera number 0 found", CameraMissing, "any more (No camera number 0 found)"),
        ("No such device", CameraMissing, "any more (No such device)"),
        ("Out of memory", SourceError, "choose a smaller size or buffers=2"),
        ("VIDIOC_REQBUFS: enomem", SourceError, "more contiguous memory (CMA)"),
        ("The link is down", SourceError, "try rpicam-hello first"),
        ("", SourceError, "camera:0 cannot be opened (RuntimeError): try rpicam-hello first"),
    ],
)
def test_reasons_in_the_words_of_the_library(hardware, told, kind, words):
    hardware.configure_error = RuntimeError(told)
    with pytest.raises(SourceError) as caught:
        open_source("camera:0")
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert caught.value.__cause__ is hardware.configure_error
    assert hardware.opened[0].closed


@pytest.mark.parametrize("explicit", [True, False])
def test_the_reason_behind_the_error_is_told_once(hardware, explicit):
    """The error of picamera2 says that something failed, the one before it says what."""
    first, second = RuntimeError("the link is down"), RuntimeError("did not complete")
    second.__cause__ = first if explicit else None
    second.__context__ = None if explicit else first
    first.__cause__ = RuntimeError("the link is down")
    first.__cause__.__cause__ = RuntimeError("")
    hardware.configure_error = second
    with pytest.raises(SourceError) as caught:
        open_source("camera:0")
    assert str(caught.value) == (
        "camera:0 cannot be opened (did not complete; the link is down): try rpicam-hello first"
    )


def test_errors_that_stand_for_one_another_come_to_an_end(hardware):
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__cause__ = second, first
    hardware.open_error = first
    with pytest.raises(SourceError, match="first; second"):
        open_source("camera:0")


def test_listing_that_fails(hardware, monkeypatch):
    def fail():
        raise RuntimeError("Could not open any dmaHeap device")

    monkeypatch.setattr(fake_picamera2.Picamera2, "global_camera_info", fail)
    with pytest.raises(SourceError, match=r"camera:0 cannot be opened .*group video"):
        open_source("camera:0")


def test_every_camera_is_listed_where_a_number_is_too_high(hardware):
    hardware.cameras = [{"Model": "imx708"}, {}]
    with pytest.raises(CameraMissing) as caught:
        open_source("camera:2")
    listed = "camera:0 (imx708), camera:1 (unknown)"
    assert str(caught.value) == f"there is no camera:2: there is {listed}"


def test_format_that_nobody_reads_is_told_as_it_is(hardware):
    hardware.format = "MJPEG"
    with pytest.raises(SourceError) as caught:
        open_source("camera:0")
    assert str(caught.value).startswith("camera:0 gives MJPEG, which edgemask does not read")


def test_interrupted_while_it_is_opened(hardware):
    hardware.configure_error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        open_source("camera:0")
    assert hardware.opened[0].closed


def test_records_of_the_library_are_not_printed_where_nobody_set_up_logging(hardware, monkeypatch):
    logger = logging.getLogger("picamera2")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", False)  # pytest listens at the root
    printed = io.StringIO()
    monkeypatch.setattr(logging, "lastResort", logging.StreamHandler(printed))
    for _ in range(3):
        open_source("camera:0").close()
    logger.warning("a long story")
    assert not printed.getvalue()
    assert len(logger.handlers) == 1  # a service opens its camera again and again
