"""Image to network input and back, over sizes 16 ... 2000 and shapes 1:5 ... 5:1."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgemask.errors import InputError
from edgemask.geometry import InputSize, fit_input, resize
from edgemask.masks import paste

SHORT, STRIDE, ASPECT = 320, 32, 2.0


@pytest.mark.parametrize(
    ("height", "width", "network"),
    [
        (480, 640, (320, 416)),  # 426.7 is nearer to 13 strides than to 14
        (640, 480, (416, 320)),
        (720, 1280, (320, 576)),  # 568.9
        (1080, 1080, (320, 320)),
        (320, 416, (320, 416)),
        (3000, 4000, (320, 416)),
        (1, 1, (320, 320)),
        (500, 1000, (320, 640)),
        (400, 2000, (128, 640)),  # more than 2:1 shrinks until the longer side is 640
        (2000, 400, (640, 128)),
        (16, 2000, (32, 640)),  # 5.1 rows, but at least one stride
    ],
)
def test_fit_input(height: int, width: int, network: tuple[int, int]) -> None:
    size = fit_input(height, width, SHORT, STRIDE, ASPECT)
    assert size == InputSize((height, width), network)


def test_fit_input_refuses() -> None:
    with pytest.raises(InputError, match="the image is 0x5 pixels"):
        fit_input(5, 0, SHORT, STRIDE)
    with pytest.raises(InputError, match="short side 31 is too small; give 32 or more"):
        fit_input(5, 5, 31, STRIDE)


def test_the_short_side_may_be_one_stride() -> None:
    assert fit_input(5, 5, 32, 32).network == (32, 32)


def image_sizes(count: int, seed: int) -> list[tuple[int, int]]:
    """Return (height, width) with the shorter and the longer side in range, log-uniformly."""
    random = np.random.default_rng(seed)
    sizes = []
    while len(sizes) < count:
        height = np.exp(random.uniform(np.log(16), np.log(2000)))
        width = height * np.exp(random.uniform(-np.log(5), np.log(5)))
        if 16 <= width <= 2000:
            sizes.append((round(height), round(width)))
    return sizes


def test_input_size_properties() -> None:
    for height, width in image_sizes(2000, seed=0):
        rows, columns = fit_input(height, width, SHORT, STRIDE, ASPECT).network
        assert rows % STRIDE == columns % STRIDE == 0
        assert min(rows, columns) >= STRIDE
        assert max(rows, columns) <= SHORT * ASPECT
        if max(height, width) <= ASPECT * min(height, width):
            assert min(rows, columns) == SHORT
        # neither axis is stretched by more than half a stride
        factor = min(SHORT / min(height, width), SHORT * ASPECT / max(height, width))
        assert abs(rows - height * factor) <= STRIDE / 2 or rows == STRIDE
        assert abs(columns - width * factor) <= STRIDE / 2 or columns == STRIDE


def random_boxes(random: np.random.Generator, height: int, width: int, count: int) -> np.ndarray:
    """Return boxes inside an image."""
    ends = np.sort(random.uniform(0, 1, (count, 2, 2)), axis=1)
    boxes = ends * (width, height)
    return boxes.reshape(count, 4).astype(np.float32)


def test_boxes_come_back() -> None:
    random = np.random.default_rng(1)
    errors = []
    for height, width in image_sizes(500, seed=1):
        size = fit_input(height, width, SHORT, STRIDE, ASPECT)
        boxes = random_boxes(random, height, width, 20)
        there = size.to_network(boxes)
        assert there.dtype == np.float32
        assert (there >= 0).all()
        assert (there <= np.array([*size.network[::-1]] * 2) + 1e-3).all()
        errors.append(size.to_image(there) - boxes)
    errors = np.array(errors)
    assert np.abs(errors).max() < 1e-2
    assert np.abs(errors.mean(axis=(0, 1))).max() < 1e-4


def test_boxes_are_clipped_to_the_image() -> None:
    size = InputSize((100, 200), (64, 128))
    found = size.to_image(np.array([[-5, -5, 500, 500]], np.float32))
    np.testing.assert_array_equal(found, [[0, 0, 200, 100]])


def test_boxes_follow_the_resized_pixels() -> None:
    """What is drawn in the image lies in the input where `to_network` says."""
    random = np.random.default_rng(2)
    errors = []
    for height, width in image_sizes(150, seed=2):
        size = fit_input(height, width, SHORT, STRIDE, ASPECT)
        # a bright rectangle that keeps away from the borders, where the filter is cut off
        x0, x1 = np.sort(random.integers(width // 5, width - width // 5, 2))
        y0, y1 = np.sort(random.integers(height // 5, height - height // 5, 2))
        x1, y1 = x1 + 1, y1 + 1
        image = np.zeros((height, width, 3), np.uint8)
        image[y0:y1, x0:x1] = 255
        pixels = resize(image, size)
        assert pixels.shape == (*size.network, 3)
        weight = pixels[..., 0].astype(np.float64)
        if weight.sum() < 255:
            continue  # smaller than a pixel of the input, and rounded away
        rows, columns = size.network
        centre = np.array(
            [
                (weight.sum(axis=0) * (np.arange(columns) + 0.5)).sum(),
                (weight.sum(axis=1) * (np.arange(rows) + 0.5)).sum(),
            ]
        )
        centre /= weight.sum()
        box = size.to_network(np.array([[x0, y0, x1, y1]], np.float32))[0]
        errors.append(centre - (box[:2] + box[2:]) / 2)
    assert len(errors) > 120
    assert np.abs(errors).max() < 0.5
    assert np.abs(np.mean(errors, axis=0)).max() < 0.02


def blob(random: np.random.Generator, cells: int = 28) -> np.ndarray:
    """Return the probabilities of an ellipse somewhere in the box, with a soft edge."""
    y, x = np.mgrid[0.5:cells, 0.5:cells] / cells
    centre, radius = random.uniform(0.4, 0.6, 2), random.uniform(0.2, 0.38, 2)
    inside = 1 - np.hypot((x - centre[0]) / radius[0], (y - centre[1]) / radius[1])
    return np.clip(0.5 + 3 * inside, 0, 1).astype(np.float32)[None]


def test_masks_come_back() -> None:
    """A mask pasted in the image lies where the same mask lies in the network's input.

    Distances are in pixels of the coarser of the two grids, which is all that can be resolved.
    """
    random = np.random.default_rng(3)
    errors, ratios = [], []
    for height, width in image_sizes(300, seed=3):
        size = fit_input(height, width, SHORT, STRIDE, ASPECT)
        rows, columns = size.network
        low = random.uniform(0, 0.5, 2) * (columns, rows)
        side = np.maximum(random.uniform(0.2, 0.5, 2) * (columns, rows), 16)
        there = np.concatenate([low, low + side])[None].astype(np.float32)
        scale = np.array([width / columns, height / rows])
        here = size.to_image(there)
        if (here[0, 2:] - here[0, :2] < 6).any() or (there[0, 2:] > (columns, rows)).any():
            continue
        probabilities = blob(random)
        in_network = paste(probabilities, there, rows, columns)
        in_image = paste(probabilities, here, height, width)
        step = np.maximum(scale, 1)
        errors.append((in_image.centroids[0] - in_network.centroids[0] * scale) / step)
        ratios.append(in_image.areas[0] / (in_network.areas[0] * scale.prod()))
    assert len(errors) > 200
    assert np.abs(errors).max() < 0.5
    assert np.abs(np.mean(errors, axis=0)).max() < 0.03
    assert np.mean(ratios) == pytest.approx(1, abs=0.01)


def test_mask_cropped_in_the_image_comes_back() -> None:
    """Image → box in the input → crop there → paste in the image: the same mask.

    Distances are in pixels, or in sixteenths of a mask's cell where those are larger.
    """
    random = np.random.default_rng(4)
    errors = []
    for height, width in image_sizes(60, seed=4):
        if min(height, width) < 60:
            continue
        size = fit_input(height, width, SHORT, STRIDE, ASPECT)
        y, x = np.ogrid[0.5:height, 0.5:width]
        centre = random.uniform(0.4, 0.6, 2) * (width, height)
        radius = random.uniform(0.15, 0.35, 2) * (width, height)
        truth = ((x - centre[0]) / radius[0]) ** 2 + ((y - centre[1]) / radius[1]) ** 2 <= 1
        margin = radius * random.uniform(1, 1.2, 4).reshape(2, 2)
        box = np.concatenate([centre - margin[0], centre + margin[1]])[None].astype(np.float32)
        box = size.to_image(size.to_network(box))
        picture = Image.fromarray(truth.astype(np.uint8) * np.uint8(255))
        crop = picture.resize((28, 28), Image.Resampling.BOX, box=tuple(box[0].tolist()))
        probabilities = np.asarray(crop, np.float32)[None] / 255
        mask = paste(probabilities, box, height, width)
        dense = mask.to_dense()[0]
        assert (dense & truth).sum() / (dense | truth).sum() > 0.95
        cell = (box[0, 2:] - box[0, :2]) / 28
        errors.append((mask.centroids[0] - centre) / np.maximum(1, cell / 16))
    assert len(errors) > 30
    assert np.abs(errors).max() < 0.5
    assert np.abs(np.mean(errors, axis=0)).max() < 0.1


def test_resize_of_the_right_size_is_free() -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    assert resize(image, InputSize((64, 96), (64, 96))) is image


def test_resize_averages_when_it_shrinks() -> None:
    """No aliasing: a fine chequerboard becomes grey."""
    image = np.indices((512, 512)).sum(axis=0) % 2 * np.uint8(255)
    image = np.repeat(image[..., None].astype(np.uint8), 3, axis=2)
    small = resize(image, InputSize((512, 512), (64, 64)))
    assert np.abs(small.astype(int) - 128).max() <= 3


@pytest.mark.parametrize(
    ("height", "width"), [(1501, 1999), (641, 3000), (3000, 700), (1280, 1664), (128, 160)]
)
def test_resize_of_large_images_is_that_of_pillow(height: int, width: int) -> None:
    rgb = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    size = InputSize((height, width), (160, 192))
    small = resize(rgb, size)
    picture = Image.fromarray(rgb)
    expected = picture.resize((192, 160), Image.Resampling.BILINEAR, reducing_gap=2.0)
    np.testing.assert_array_equal(small, np.asarray(expected))
    slow = np.asarray(picture.resize((192, 160), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(small - slow).mean() < 3  # noise is the worst there is


def test_resize_of_a_panorama_is_that_of_pillow() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (600, 8000, 3), np.uint8)
    small = resize(rgb, InputSize((600, 8000), (8, 64)))
    expected = Image.fromarray(rgb).resize((64, 8), Image.Resampling.BILINEAR, reducing_gap=2.0)
    np.testing.assert_array_equal(small, np.asarray(expected))


def test_resize_of_views() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    size = InputSize((45, 60), (32, 32))
    np.testing.assert_array_equal(
        resize(image[::2, ::-2], size), resize(image[::2, ::-2].copy(), size)
    )
