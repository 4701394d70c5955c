"""int8 tensors: quantization, sigmoid look-up, and the best k of raw logits.

A quantized tensor stands for ``scale * (q - zero_point)`` (TFLite's affine scheme, Jacob et al.
2018). A positive scale keeps the order, so candidates can be chosen on the raw int8 values.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgemask.errors import InputError

__all__ = ["dequantize", "lookup", "quantize", "sigmoid", "sigmoid_table", "softmax", "top_k"]

Floats = NDArray[np.float32]


def dequantize(q: NDArray[np.int8] | Floats, scale: float, zero_point: int) -> Floats:
    """Return the real values ``scale * (q - zero_point)``.

    Parameters
    ----------
    q : ndarray of int8 or float32, any shape
    scale : float
        Positive.
    zero_point : int
        In [-128, 127].

    Returns
    -------
    ndarray of float32, same shape
        Always a new array.
    """
    values = np.asarray(q).astype(np.float32)
    if zero_point:
        values -= np.float32(zero_point)
    values *= np.float32(scale)
    return values


def quantize(x: ArrayLike, scale: float, zero_point: int) -> NDArray[np.int8]:
    """Return the nearest int8 values; real values outside the range saturate.

    Parameters
    ----------
    x : array_like of float, any shape
        Real values without NaN.
    scale : float
        Positive.
    zero_point : int
        In [-128, 127].

    Returns
    -------
    ndarray of int8, same shape
        ``rint(x / scale) + zero_point`` limited to [-128, 127]; halves go to the even number.

    Raises
    ------
    InputError
        If the scale is not positive.
    """
    if not scale > 0:
        raise InputError(f"the quantization scale is {scale}; it must be positive")
    values = np.divide(x, np.float32(scale), dtype=np.float32)
    values = np.rint(values, out=values if values.ndim else None)
    values += np.float32(zero_point)
    return np.clip(values, -128, 127).astype(np.int8)


def sigmoid(x: ArrayLike) -> Floats:
    """Return ``1 / (1 + exp(-x))`` for any float32, without overflow.

    Parameters
    ----------
    x : array_like of float, any shape

    Returns
    -------
    ndarray of float32, same shape, in [0, 1]
    """
    # exp() overflows float32 from 88.8 on. The sigmoid of -87 is 1e-38, as good as 0.
    values = np.asarray(np.minimum(np.negative(x, dtype=np.float32), np.float32(87)))
    np.exp(values, out=values)
    values += np.float32(1)
    np.reciprocal(values, out=values)
    return values


def softmax(x: Floats) -> Floats:
    """Return the softmax over the last axis.

    Parameters
    ----------
    x : ndarray of float32, shape (N, C), C ≥ 1

    Returns
    -------
    ndarray of float32, same shape, rows summing to 1
    """
    # Rounded from double precision, as the sigmoid's table is: the same on every machine.
    powers = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    shares: Floats = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return shares


@functools.lru_cache(maxsize=16)
def sigmoid_table(scale: float, zero_point: int) -> Floats:
    """Return the sigmoid of all 256 int8 values, for :func:`lookup`.

    Parameters
    ----------
    scale : float
    zero_point : int
        Quantization of the logits.

    Returns
    -------
    ndarray of float32, shape (256,), in [0, 1]
        Indexed by the value's bits read as uint8, ``q.view(np.uint8)``: first the sigmoids of
        0 ... 127, then those of -128 ... -1. Read-only and shared between calls.
    """
    values = dequantize(np.arange(256, dtype=np.uint8).view(np.int8), scale, zero_point)
    # Rounded from double precision, and so the same on every machine, which exp in float32 is not.
    exponents = np.minimum(-values.astype(np.float64), 87)
    table: Floats = np.reciprocal(1 + np.exp(exponents)).astype(np.float32)
    table.flags.writeable = False
    return table


def lookup(q: NDArray[np.int8], table: Floats) -> Floats:
    """Return the table's value for each int8.

    Parameters
    ----------
    q : ndarray of int8, any shape
    table : ndarray of float32, shape (256,)
        From :func:`sigmoid_table`.

    Returns
    -------
    ndarray of float32, same shape
    """
    if q.dtype != np.int8:
        raise InputError(f"lookup() got {q.dtype}; give the raw int8 tensor")
    return table[q.view(np.uint8)]


def top_k(
    levels: Sequence[NDArray[np.int8] | Floats],
    params: Sequence[tuple[float, int]],
    k: int,
) -> tuple[NDArray[np.int64], Floats]:
    """Return the k largest logits of several tensors that differ in quantization.

    Parameters
    ----------
    levels : sequence of ndarray, int8 or float32
        Raw logits, any shape each.
    params : sequence of (float, int)
        Scale and zero point of each level; (1.0, 0) for a float32 level.
    k : int
        How many to return at most.

    Returns
    -------
    indices : ndarray of int64, shape (min(k, total),)
        Positions in the concatenation of the flattened levels, by descending logit, ties by
        ascending position.
    logits : ndarray of float32, same shape
        The dequantized logits of those.

    Raises
    ------
    InputError
        If there is not one pair of parameters per level, or k is negative.
    """
    if len(levels) != len(params):
        raise InputError(f"{len(params)} quantizations for {len(levels)} levels; give one each")
    if k < 0:
        raise InputError(f"k is {k}; give 0 or more")
    if 0 < len(levels) <= 256 and all(level.dtype == np.int8 for level in levels):
        # One sort for all levels: NumPy sorts 16-bit numbers stably by counting them.
        tables, values = _ranks(tuple((scale, zero_point) for scale, zero_point in params))
        ranks = np.concatenate(
            [
                table.take(level.reshape(-1).view(np.uint8))
                for table, level in zip(tables, levels, strict=True)
            ]
        )
        best = ranks.argsort(kind="stable")[:k]
        return best.astype(np.int64, copy=False), values.take(ranks.take(best))
    indices, logits = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    start = 0
    for level, (scale, zero_point) in zip(levels, params, strict=True):
        flat = level.reshape(-1)
        chosen = _top_k_raw(flat, k)
        logits.append(dequantize(flat[chosen], scale, zero_point))
        indices.append(chosen.astype(np.int64, copy=False) + start)
        start += flat.size
    merged = np.concatenate(logits)
    order = np.argsort(-merged, kind="stable")[:k]
    return np.concatenate(indices)[order], merged[order]


@functools.lru_cache(maxsize=16)
def _ranks(
    params: tuple[tuple[float, int], ...],
) -> tuple[list[NDArray[np.uint16]], Floats]:
    """Return how the int8 values of several quantizations compare.

    Returns
    -------
    ranks : list of ndarray of uint16, shape (256,)
        Per quantization and value, indexed as :func:`sigmoid_table` is, its place among all values
        that occur, 0 being the largest. Equal ones share a place.
    values : ndarray of float32
        The value of each place.
    """
    codes = np.arange(256, dtype=np.uint8).view(np.int8)
    numbers = [dequantize(codes, scale, zero_point) for scale, zero_point in params]
    values, places = np.unique(np.concatenate(numbers), return_inverse=True)
    ranks = (len(values) - 1 - places.reshape(-1)).astype(np.uint16)
    return list(ranks.reshape(len(params), 256)), values[::-1].copy()


def _top_k_raw(flat: NDArray[np.int8] | Floats, k: int) -> NDArray[np.int64]:
    """Return the positions of the k largest values; equal values by ascending position."""
    if k >= flat.size or k == 0:
        return np.arange(min(k, flat.size))
    border = np.partition(flat, flat.size - k)[flat.size - k]
    above = np.flatnonzero(flat > border)
    equal = np.flatnonzero(flat == border)[: k - above.size]
    return np.sort(np.concatenate([above, equal]))
