"""Camera formats to RGB, against the formulas of the recommendations in exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from edgemask.errors import SourceError
from edgemask.sources.colour import FORMATS, MATRICES, Layout, to_rgb

WIDTH, HEIGHT = 24, 10


def exact(y, u, v, matrix, full_range):
    """Return RGB for planes of luma and chroma of the same shape, in float64."""
    red, blue = MATRICES[matrix]
    green = 1 - red - blue
    y, u, v = (plane.astype(np.float64) for plane in (y, u, v))
    if full_range:
        y, u, v = y, u - 128, v - 128
    else:
        y, u, v = (y - 16) * 255 / 219, (u - 128) * 255 / 224, (v - 128) * 255 / 224
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / green
    return np.clip(np.rint(np.stack([r, g, b], axis=-1)), 0, 255)


def planes(rows_to_a_sample=2):
    random = np.random.default_rng(0)
    y = random.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    shape = (HEIGHT // rows_to_a_sample, WIDTH // 2)
    u, v = random.integers(0, 256, (2, *shape), dtype=np.uint8)
    full = [plane.repeat(rows_to_a_sample, axis=0).repeat(2, axis=1) for plane in (u, v)]
    return y, u, v, full


def packed(kind, y, u, v, stride):
    """Return the buffer of a frame, padded with a value that must not show."""
    if kind in ("NV12", "NV21"):
        first, second = (u, v) if kind == "NV12" else (v, u)
        chroma = np.stack([first, second], axis=-1).reshape(HEIGHT // 2, WIDTH)
        rows = np.full((HEIGHT * 3 // 2, stride), 77, np.uint8)
        rows[:HEIGHT, :WIDTH], rows[HEIGHT:, :WIDTH] = y, chroma
    elif kind in ("YUV420", "YVU420"):
        first, second = (u, v) if kind == "YUV420" else (v, u)
        rows = np.full((HEIGHT * 3 // 2, stride), 77, np.uint8)
        rows[:HEIGHT, :WIDTH] = y
        below = rows[HEIGHT:].reshape(HEIGHT, stride // 2)
        below[: HEIGHT // 2, : WIDTH // 2] = first
        below[HEIGHT // 2 :, : WIDTH // 2] = second
    else:
        rows = np.full((HEIGHT, stride), 77, np.uint8)
        luma = 0 if kind == "YUYV" else 1
        rows[:, luma : 2 * WIDTH : 2] = y
        rows[:, 1 - luma : 2 * WIDTH : 4], rows[:, 3 - luma : 2 * WIDTH : 4] = u, v
    return rows.reshape(-1)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("padding", [0, 8])
@pytest.mark.parametrize("kind", ["NV12", "NV21", "YUV420", "YVU420", "YUYV", "UYVY"])
def test_chroma_formats(kind, padding, full_range, matrix):
    interleaved = kind in ("YUYV", "UYVY")
    y, u, v, full = planes(1 if interleaved else 2)
    stride = WIDTH * (2 if interleaved else 1) + padding
    layout = Layout(kind, WIDTH, HEIGHT, stride, matrix, full_range)
    rgb = to_rgb(packed(kind, y, u, v, stride), layout)
    assert rgb.dtype == np.uint8
    difference = np.abs(rgb - exact(y, *full, matrix, full_range))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.03


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("kind", "order"),
    [("BGR888", "RGB"), ("RGB888", "BGR"), ("XBGR8888", "RGBX"), ("XRGB8888", "BGRX")],
)
def test_packed_formats_name_the_bytes_backwards(kind, order, padding):
    stride = len(order) * WIDTH + padding
    rows = np.zeros((HEIGHT, stride), np.uint8)
    for place, letter in enumerate(order):
        value = {"R": 10, "G": 20, "B": 30, "X": 99}[letter]
        rows[:, place : len(order) * WIDTH : len(order)] = value
    rgb = to_rgb(rows.reshape(-1), Layout(kind, WIDTH, HEIGHT, stride))
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    assert (rgb == (10, 20, 30)).all()


@pytest.mark.parametrize(
    ("yuv", "matrix", "full_range", "rgb"),
    [
        ((16, 128, 128), "bt601", False, (0, 0, 0)),
        ((235, 128, 128), "bt709", False, (255, 255, 255)),
        ((0, 128, 128), "bt601", True, (0, 0, 0)),
        ((255, 128, 128), "bt601", True, (255, 255, 255)),
        # The primaries as the recommendations give them.
        ((81, 90, 240), "bt601", False, (255, 0, 0)),
        ((63, 102, 240), "bt709", False, (255, 0, 0)),
        ((41, 240, 110), "bt601", False, (0, 0, 255)),
        ((32, 240, 118), "bt709", False, (0, 0, 255)),
        ((76, 85, 255), "bt601", True, (254, 0, 0)),
    ],
)
def test_known_colours(yuv, matrix, full_range, rgb):
    y = np.full((HEIGHT, WIDTH), yuv[0], np.uint8)
    u, v = (np.full((HEIGHT // 2, WIDTH // 2), value, np.uint8) for value in yuv[1:])
    layout = Layout("NV12", WIDTH, HEIGHT, WIDTH, matrix, full_range)
    found = to_rgb(packed("NV12", y, u, v, WIDTH), layout)
    np.testing.assert_allclose(found[0, 0].astype(int), rgb, atol=2)


def test_large_frames_are_the_same_in_every_band():
    random = np.random.default_rng(1)
    width, height = 640, 480
    buffer = random.integers(0, 256, width * height * 3 // 2, dtype=np.uint8)
    rgb = to_rgb(buffer, Layout("NV12", width, height, width))
    y = buffer[: width * height].reshape(height, width)
    chroma = buffer[width * height :].reshape(height // 2, width // 2, 2)
    u, v = (chroma[..., n].repeat(2, axis=0).repeat(2, axis=1) for n in (0, 1))
    assert np.abs(rgb - exact(y, u, v, "bt601", False)).max() <= 1


def test_last_row_without_padding():
    # Drivers allocate stride * (H - 1) + what the last row needs.
    y, u, v, full = planes()
    buffer = packed("NV12", y, u, v, WIDTH + 8)[:-8]
    rgb = to_rgb(buffer, Layout("NV12", WIDTH, HEIGHT, WIDTH + 8, "bt601", True))
    assert np.abs(rgb - exact(y, *full, "bt601", True)).max() <= 1


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout("SRGGB10", 8, 8, 8), ["SRGGB10", *FORMATS]),
        (Layout("NV12", 7, 8, 8), ["7x8", "even"]),
        (Layout("NV12", 8, 8, 8), ["20 bytes", "too short"]),
        (Layout("BGR888", 8, 8, 8), ["too short", "8 bytes a row"]),
    ],
)
def test_what_cannot_be_read(layout, words):
    with pytest.raises(SourceError) as caught:
        to_rgb(np.zeros(20, np.uint8), layout)
    for word in words:
        assert word in str(caught.value)


def test_yuyv_of_an_odd_height() -> None:
    with pytest.raises(SourceError, match="even width and height"):
        to_rgb(np.zeros(1000, np.uint8), Layout("YUYV", 4, 3, 8))


def test_a_row_that_is_one_byte_too_short() -> None:
    with pytest.raises(SourceError, match="too short"):
        to_rgb(np.zeros(1000, np.uint8), Layout("BGR888", 4, 2, 11))
