"""Resizing in the runtime, against the same thing written out and against Pillow."""

from __future__ import annotations

import importlib.resources

import numpy as np
import pytest
from PIL import Image

from edgemask import shrink
from edgemask.errors import RuntimeUnavailable
from edgemask.geometry import InputSize, resize
from edgemask.interpreter import load_runtime
from edgemask.shrink import MARKERS, Shrinker, between, numbers

pytestmark = pytest.mark.skipif(
    not load_runtime().int8_delegate, reason="without XNNPACK Pillow resizes"
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Something smooth, with an edge and a little noise."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = np.stack([np.sin(x / 9), np.sin(y / 7 + x / 31), np.cos((x + y) / 17)], axis=-1)
    values = 128 + 90 * waves + np.random.default_rng(seed).normal(0, 4, waves.shape)
    values[: height // 3, : width // 4] += 60
    return np.clip(values, 0, 255).astype(np.uint8)


def bilinear(image: np.ndarray, length: int) -> np.ndarray:
    """Rows resized in one step, and rounded."""
    points = np.clip((np.arange(length) + 0.5) * len(image) / length - 0.5, 0, len(image) - 1)
    low = points.astype(int)
    high = np.minimum(low + 1, len(image) - 1)
    part = (points - low)[:, None, None]
    return np.floor(image[low] * (1 - part) + image[high] * part + 0.5)


def written_out(image: np.ndarray, size: InputSize, averaged: bool) -> np.ndarray:
    """What the graph computes, in double precision."""
    values = image.astype(np.float64)
    for length in size.network:
        middle = between(len(values), length, averaged)
        assert middle is not None
        if middle != length:
            values = bilinear(values, middle)
        values = bilinear(values, length).transpose(1, 0, 2)
    return values


@pytest.mark.parametrize("averaged", [True, False])
@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (480, 640, 320, 416),
        (640, 480, 416, 320),
        (333, 417, 320, 416),
        (1080, 1920, 320, 576),
        (768, 1024, 320, 416),
        (75, 101, 96, 128),  # grows
        (50, 900, 64, 192),
        (1, 1, 32, 32),
        (1, 500, 32, 96),
    ],
)
def test_it_is_bilinear_in_two_steps(
    height: int, width: int, rows: int, columns: int, averaged: bool
) -> None:
    image, size = picture(height, width), InputSize((height, width), (rows, columns))
    found = Shrinker(averaged=averaged)(image, size)
    assert found.shape == (rows, columns, 3)
    assert found.dtype == np.uint8
    difference = np.abs(found - written_out(image, size, averaged))
    assert difference.max() <= 2  # weights in steps of 1/2048, and halves to either side
    assert difference.mean() < 0.2


def test_the_steps_between() -> None:
    assert between(480, 320, True) == 640
    assert between(480, 320, False) == 320
    assert between(300, 320, True) == 320
    # 640 / 832 is one of those where a fused product and sum rounds to another weight.
    assert between(640, 416, True) == 825
    assert between(1200, 416, False) == between(1200, 416, True) != 416
    counts = {between(old, 416, True) for old in range(417, 1200)}
    assert all(count is None or 416 < count <= 832 for count in counts)


def test_it_is_close_to_pillow() -> None:
    image = picture(480, 640)
    size = InputSize((480, 640), (320, 416))
    plain = np.asarray(Image.fromarray(image).resize((416, 320), Image.Resampling.BILINEAR))
    assert np.abs(Shrinker()(image, size).astype(int) - plain).mean() < 1


def test_it_averages() -> None:
    """No aliasing: a fine chequerboard becomes grey."""
    image = np.indices((512, 512)).sum(axis=0) % 2 * np.uint8(255)
    image = np.repeat(image[..., None].astype(np.uint8), 3, axis=2)
    small = Shrinker()(image, InputSize((512, 512), (128, 128)))
    assert np.abs(small.astype(int) - 128).max() <= 3


def test_one_sample_where_the_pack_says_so() -> None:
    image = picture(200, 300)
    half, less = InputSize((200, 300), (100, 160)), InputSize((200, 300), (96, 128))
    quick = Shrinker(averaged=False)
    expected = bilinear(image.astype(np.float64), 100).transpose(1, 0, 2)
    expected = bilinear(expected, 160).transpose(1, 0, 2)
    assert np.abs(quick(image, half) - expected).max() <= 2
    np.testing.assert_array_equal(quick(image, less), Shrinker()(image, less))


def test_the_same_size_costs_nothing() -> None:
    image = picture(64, 96)
    assert Shrinker()(image, InputSize((64, 96), (64, 96))) is image


def test_codes_are_levels_minus_128() -> None:
    shrinker = Shrinker(threads=2)
    for height, width in ((90, 120), (64, 96), (200, 150), (90, 120)):  # one after the other
        image = picture(height, width)
        size = InputSize((height, width), (64, 96))
        codes = shrinker.codes(image, size)
        assert codes is not None
        assert codes.dtype == np.int8
        np.testing.assert_array_equal(codes.astype(int) + 128, Shrinker()(image, size))


def test_views_of_images() -> None:
    image = picture(90, 120)
    size = InputSize((45, 60), (32, 32))
    mirrored = image[::2, ::-2]
    np.testing.assert_array_equal(Shrinker()(mirrored, size), Shrinker()(mirrored.copy(), size))
    image.flags.writeable = False
    Shrinker()(image, InputSize((90, 120), (32, 32)))


def test_pillow_resizes_what_is_much_larger() -> None:
    image = picture(400, 300)
    size = InputSize((400, 300), (64, 32))
    assert Shrinker().codes(image, size) is None
    np.testing.assert_array_equal(Shrinker()(image, size), resize(image, size))


@pytest.mark.parametrize(
    ("image", "network"), [((600, 1000), (128, 160)), ((1000, 600), (160, 128))]
)
def test_either_axis_leaves_it_to_pillow(image: tuple[int, int], network: tuple[int, int]) -> None:
    assert Shrinker().codes(np.zeros((*image, 3), np.uint8), InputSize(image, network)) is None


def test_a_size_for_pillow_after_one_that_was_not() -> None:
    shrinker = Shrinker()
    assert shrinker.codes(picture(96, 144), InputSize((96, 144), (64, 96))) is not None
    large = np.zeros((600, 1000, 3), np.uint8)
    assert shrinker.codes(large, InputSize((600, 1000), (64, 96))) is None


def test_pillow_resizes_without_a_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise RuntimeUnavailable("no runtime")

    monkeypatch.setattr(shrink, "load_runtime", none)
    image, size = picture(90, 120), InputSize((90, 120), (64, 96))
    np.testing.assert_array_equal(Shrinker()(image, size), resize(image, size))


@pytest.mark.parametrize("steps", [1, 2])
def test_the_graphs_have_every_number_that_must_change(steps: int) -> None:
    asset = importlib.resources.files("edgemask") / "assets" / f"shrink{steps}.tflite"
    words = np.frombuffer(asset.read_bytes(), "<i4")
    used = [marker for marker in MARKERS if (words == marker).any()]
    only_between = {10061, 10067} if steps == 1 else set()
    assert used == [marker for marker in MARKERS if marker not in only_between]
    assert len(MARKERS) == len(numbers(1, 1, 1, 1, 1, 1))
