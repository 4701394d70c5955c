"""Quantization, sigmoid and top-k."""

import math

import numpy as np
import pytest

from edgemask.errors import InputError
from edgemask.quant import dequantize, lookup, quantize, sigmoid, sigmoid_table, top_k

ALL = np.arange(-128, 128, dtype=np.int8)


@pytest.mark.parametrize(("scale", "zero_point"), [(0.0078125, 0), (0.02353, -128), (0.1, 17)])
def test_quantize_inverts_dequantize(scale, zero_point):
    values = dequantize(ALL, scale, zero_point)
    assert values.dtype == np.float32
    np.testing.assert_allclose(
        values, [scale * (q - zero_point) for q in range(-128, 128)], rtol=1e-6
    )
    back = quantize(values, scale, zero_point)
    assert back.dtype == np.int8
    np.testing.assert_array_equal(back, ALL)


def test_quantize_rounds_to_even_and_saturates():
    got = quantize([0.5, 1.5, -0.5, 2.4, 1e9, -1e9], 1.0, 0)
    assert got.tolist() == [0, 2, 0, 2, 127, -128]
    assert quantize(3.0, 0.5, 1) == 7
    with pytest.raises(InputError, match="positive"):
        quantize([1.0], 0.0, 0)


@pytest.mark.parametrize("scale", [-0.1, float("nan")])
def test_a_scale_is_positive(scale: float) -> None:
    with pytest.raises(InputError, match="must be positive"):
        quantize([1.0], scale, 0)


def test_dequantize_leaves_its_input_alone():
    values = np.ones(3, np.float32)
    out = dequantize(values, 1.0, 0)
    out += 1
    assert values.tolist() == [1, 1, 1]


def test_sigmoid():
    x = np.linspace(-30, 30, 301, dtype=np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        got = sigmoid(x)
        extreme = sigmoid(np.float32([-1e30, -1000, -88, 0, 88, 1000, 1e30]))
    want = [1 / (1 + math.exp(-v)) for v in x.tolist()]
    np.testing.assert_allclose(got, want, rtol=2e-6)
    assert got.dtype == np.float32
    assert extreme[3] == 0.5
    assert (extreme[:3] < 1e-37).all()
    assert (extreme[4:] == 1).all()
    assert sigmoid(0.0) == 0.5


@pytest.mark.parametrize(("scale", "zero_point"), [(0.1, 3), (1.0, -128)])
def test_table_equals_sigmoid(scale, zero_point):
    table = sigmoid_table(scale, zero_point)
    assert table.shape == (256,)
    tensor = ALL.reshape(1, 16, 16)
    # Rounded once, from double precision: where float32 arithmetic is not, it is a bit off.
    want = [1 / (1 + math.exp(-min(v, 700))) for v in dequantize(ALL, scale, zero_point).tolist()]
    np.testing.assert_array_equal(table[ALL.view(np.uint8)], np.array(want, np.float32))
    np.testing.assert_allclose(
        lookup(tensor, table), sigmoid(dequantize(tensor, scale, zero_point)), rtol=1e-6
    )
    strided = np.zeros((8, 4), np.int8)
    strided[:, 2] = range(8)
    np.testing.assert_array_equal(
        lookup(strided[:, 2], table), lookup(np.arange(8, dtype=np.int8), table)
    )
    with pytest.raises(InputError, match="int8"):
        lookup(np.zeros(3, np.uint8), table)


def test_the_table_is_shared_and_read_only() -> None:
    assert sigmoid_table(0.125, 3) is sigmoid_table(0.125, 3)
    with pytest.raises(ValueError, match="read-only"):
        sigmoid_table(0.125, 3)[0] = 0


def sorted_top_k(levels, params, k):
    """All logits, sorted."""
    logits = np.concatenate(
        [
            np.float32(scale) * (level.reshape(-1).astype(np.float32) - np.float32(zero_point))
            for level, (scale, zero_point) in zip(levels, params, strict=True)
        ]
    )
    order = np.argsort(-logits, kind="stable")[:k]
    return order, logits[order]


@pytest.mark.parametrize("k", [0, 1, 50, 200, 100_000])
@pytest.mark.parametrize("seed", range(8))
def test_top_k_equals_sorting_everything(seed, k):
    rng = np.random.default_rng(seed)
    levels, params = [], []
    for side in (24, 12, 6, 3):
        spread = int(rng.choice([2, 30, 256]))  # few distinct values: ties everywhere
        level = rng.integers(-128, spread - 128, (1, side, side, 3)).astype(np.int8)
        if seed % 4 == 3:
            level = np.round(rng.normal(size=level.shape) * 4).astype(np.float32) / 4
        levels.append(level)
        params.append((float(rng.choice([0.05, 0.1])), int(rng.integers(-128, 128))))
        if level.dtype == np.float32:
            params[-1] = 1.0, 0
    indices, logits = top_k(levels, params, k)
    assert indices.dtype == np.int64
    assert logits.dtype == np.float32
    want_indices, want_logits = sorted_top_k(levels, params, k)
    np.testing.assert_array_equal(indices, want_indices)
    np.testing.assert_array_equal(logits, want_logits)


def test_top_k_mixes_int8_and_float():
    levels = [np.int8([10, 20]), np.float32([1.5, -3])]
    indices, logits = top_k(levels, [(0.1, 0), (1.0, 0)], 3)
    assert indices.tolist() == [1, 2, 0]
    np.testing.assert_allclose(logits, [2, 1.5, 1])


def test_top_k_of_nothing():
    indices, logits = top_k([], [], 5)
    assert len(indices) == len(logits) == 0
    with pytest.raises(InputError, match="one each"):
        top_k([np.zeros(3, np.int8)], [], 1)
    with pytest.raises(InputError, match="k is -1"):
        top_k([], [], -1)
