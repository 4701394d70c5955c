"""Run-length encoding: the same bytes as pycocotools."""

import numpy as np
import pytest

from edgemask.errors import InputError
from edgemask.rle import decode, encode_crop


def random_crop(seed):
    """A crop in an image, often touching the border or filling whole columns or rows."""
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(1, 60, 2))
    h, w = int(rng.integers(0, height + 1)), int(rng.integers(0, width + 1))
    if seed % 3 == 0:
        h = height
    if seed % 5 == 0:
        w = width
    x0, y0 = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    crop = rng.random((h, w)) < rng.choice([0.0, 0.05, 0.5, 0.95, 1.0])
    dense = np.zeros((height, width), bool)
    dense[y0 : y0 + h, x0 : x0 + w] = crop
    return crop, x0, y0, dense


def runs_in_loops(dense):
    """Lengths of the runs of the mask read by columns, background first."""
    counts, value = [0], False
    for pixel in dense.T.reshape(-1).tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def text_of_runs(counts):
    """COCO's text for run lengths, one bit group at a time."""
    text = bytearray()
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            group, value = value & 0x1F, value >> 5
            more = value != (-1 if group & 0x10 else 0)
            text.append(48 + group + (0x20 if more else 0))
    return bytes(text)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # pycocotools on numpy 2
@pytest.mark.parametrize("seed", range(60))
def test_equal_to_pycocotools(seed):
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    crop, x0, y0, dense = random_crop(seed)
    want = coco.encode(np.asfortranarray(dense.astype(np.uint8)))["counts"]
    counts = encode_crop(crop, x0, y0, *dense.shape)
    assert counts == want
    np.testing.assert_array_equal(coco.decode({"size": list(dense.shape), "counts": counts}), dense)


@pytest.mark.parametrize("seed", range(60))
def test_equal_to_the_definition_and_back(seed):
    crop, x0, y0, dense = random_crop(seed + 1000)
    counts = encode_crop(crop, x0, y0, *dense.shape)
    assert counts == text_of_runs(runs_in_loops(dense))
    back = decode(counts, *dense.shape)
    assert back.dtype == np.bool_
    np.testing.assert_array_equal(back, dense)
    np.testing.assert_array_equal(decode(counts.decode(), *dense.shape), dense)


@pytest.mark.parametrize("value", [False, True])
def test_large_runs(value):
    height, width = 9000, 11_000
    crop = np.full((height, 2), value)
    counts = encode_crop(crop, 5000, 0, height, width)
    runs = [5000 * height, 2 * height, 5998 * height] if value else [height * width]
    assert counts == text_of_runs(runs)


def test_runs_of_a_large_image() -> None:
    counts = encode_crop(np.ones((10, 10), bool), 700, 500, 1080, 1920)
    mask = decode(counts, 1080, 1920)
    assert mask[500:510, 700:710].all()
    assert mask.sum() == 100


def test_a_strided_crop_and_one_pixel():
    assert encode_crop(np.ones((4, 6), bool)[::2, ::3], 0, 0, 2, 2) == text_of_runs([0, 4])
    assert encode_crop(np.ones((1, 1), bool), 0, 0, 1, 1) == text_of_runs([0, 1])
    assert encode_crop(np.zeros((0, 0), bool), 0, 0, 3, 4) == text_of_runs([12])
    assert encode_crop(np.zeros((0, 5), bool), 2, 1, 9, 9) == text_of_runs([81])


@pytest.mark.parametrize(
    ("shape", "x0", "y0"),
    [((3, 3), -1, 0), ((3, 3), 0, -1), ((3, 3), 0, 8), ((3, 3), 8, 0), ((11, 1), 0, 0)],
)
def test_a_crop_outside_of_the_image(shape, x0, y0):
    with pytest.raises(InputError, match="clip it"):
        encode_crop(np.ones(shape, bool), x0, y0, 10, 10)


def test_not_a_mask():
    with pytest.raises(InputError, match="uint8"):
        encode_crop(np.ones((3, 3), np.uint8), 0, 0, 10, 10)
    with pytest.raises(InputError, match=r"\(h, w\)"):
        encode_crop(np.ones(3, bool), 0, 0, 10, 10)


@pytest.mark.parametrize(
    "counts", [b"", b"o", b"\x01", "é", b"PPPPPPPPPPPPPPPPPPPPPP0", b"9", b"\xff"]
)
def test_damaged_counts(counts):
    with pytest.raises(InputError, match="RLE counts"):
        decode(counts, 4, 4)


def test_counts_that_come_round_to_the_right_sum() -> None:
    with pytest.raises(InputError, match="add up to 4x4"):
        decode(text_of_runs([2**57] * 128 + [16]), 4, 4)  # 2**64 + 16, in 64 bits 16


def test_characters_that_no_count_has() -> None:
    with pytest.raises(InputError, match="compressed format"):
        decode(b"\xff4", 5, 5)


def test_counts_of_another_size():
    counts = encode_crop(np.ones((2, 2), bool), 1, 1, 5, 6)
    assert decode(counts, 6, 5).shape == (6, 5)
    with pytest.raises(InputError, match="7x6"):
        decode(counts, 7, 6)
    with pytest.raises(InputError, match="add up"):
        decode(text_of_runs([20, -4]), 4, 4)
