"""Resizing an image to the network's input in the TFLite runtime.

Pillow filters an RGB image pixel by pixel, on copies with four bytes a pixel. XNNPACK's bilinear
resize is fast where there are many channels, so rows and columns are resized one after the other:
first the rows, a whole row of pixels being the channels, then, transposed, the columns.
"""

from __future__ import annotations

import functools
import importlib.resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.errors import RuntimeUnavailable
from edgemask.geometry import InputSize, resize
from edgemask.interpreter import load_runtime, tensor_view

__all__ = ["MARKERS", "Shrinker", "between", "numbers"]

MARKERS = (10007, 10009, 30027, 10037, 30111, 10061, 10039, 10067)
"""What the graphs in ``assets`` have in place of the :func:`numbers`, in that order."""

_MOST = 6.0  # what shrinks more, Pillow resizes: a few samples a pixel would leave gaps


def numbers(
    height: int, width: int, rows: int, rows_between: int, columns: int, columns_between: int
) -> tuple[int, ...]:
    """Return all numbers in a graph that depend on the sizes of its image and its result."""
    return height, width, 3 * width, rows, 3 * rows, rows_between, columns, columns_between


@functools.lru_cache(maxsize=256)
def between(old: int, new: int, averaged: bool) -> int | None:
    """Choose how many samples one axis is resized to before it is resized to its length.

    Parameters
    ----------
    old, new : int
        Length of the axis in the image and in the result, pixels.
    averaged : bool
        Whether to take more samples than pixels wherever the axis shrinks, or only where it shrinks
        to less than half.

    Returns
    -------
    int or None
        `new` where one step is enough, else twice as many or a little less, or half of `old`. None
        if two machines could differ with any of those.

    Notes
    -----
    The runtime computes where to sample in float32. ARM compilers fuse the product and the sum into
    one operation, others do not, and now and then this moves a weight by its last bit, 1/2048.
    Which lengths are affected can be told, and others are taken.
    """
    if old <= new or (not averaged and old <= 2 * new and _same_everywhere(old, new)):
        return new if _same_everywhere(old, new) else None
    counts: list[int] = [*range(2 * new, 5 * new // 4, -1)]
    # Means of two neighbours, or of four: a first step that is exact.
    counts += [old // part for part in (2, 4) if old % part == 0 and old >= part * new]
    for count in counts:
        if _same_everywhere(old, count) and _same_everywhere(count, new):
            return count
    return None


def _same_everywhere(old: int, new: int) -> bool:
    """Whether all machines give the samples of a bilinear resize the same weights."""
    scale = np.float32(old / new)
    shift = np.float32(0.5) * scale - np.float32(0.5)
    index = np.arange(new, dtype=np.float32)
    fused = (index.astype(np.float64) * np.float64(scale) + np.float64(shift)).astype(np.float32)
    weights = []
    for points in (index * scale + shift, fused):
        np.clip(points, np.float32(0), np.float32(old - 1), out=points)
        whole = np.floor(points)
        steps = np.rint((points - whole) * np.float32(2048))
        weights.append(whole.astype(np.int64) * 2048 + steps.astype(np.int64))
    return np.array_equal(*weights)


class Shrinker:
    """Resizes images, with averaging; quickest when one after the other has the same size.

    Each axis is resized in two steps of bilinear interpolation, to about twice as many pixels as
    are wanted, and from there to those: nearly what Pillow's bilinear filter gives. What is less
    than a sixth in size, Pillow resizes (:func:`edgemask.geometry.resize`), and so it does where
    XNNPACK is not available. Rounded after each step, in integers: the same on every machine that
    has XNNPACK. Not safe to share between threads.

    Parameters
    ----------
    threads : int
        Threads of the runtime, 1 or more.
    averaged : bool
        False resizes in one step where that is to half the size or more. It takes half the time,
        and a network that has only seen averaged pixels loses a little by it.
    """

    def __init__(self, threads: int = 1, averaged: bool = True) -> None:
        self._threads = threads
        self._averaged = averaged
        self._size: InputSize | None = None
        self._interpreter: Any = None
        self._input: NDArray[np.uint8] | None = None
        self._output: NDArray[np.uint8] | None = None
        try:
            self._available = load_runtime().int8_delegate
        except RuntimeUnavailable:  # the networks may be run by something else
            self._available = False

    def __call__(self, rgb: NDArray[np.uint8], size: InputSize) -> NDArray[np.uint8]:
        """Return an image (H, W, 3) at the network's size; the image itself if it has that size."""
        if rgb.shape[:2] == size.network:
            return rgb
        codes = self.codes(rgb, size)
        return resize(rgb, size) if codes is None else codes.view(np.uint8) ^ np.uint8(0x80)

    def codes(self, rgb: NDArray[np.uint8], size: InputSize) -> NDArray[np.int8] | None:
        """Return the resized image as levels minus 128, which saves a copy.

        Parameters
        ----------
        rgb : ndarray of uint8, shape (H, W, 3)
        size : InputSize

        Returns
        -------
        ndarray of int8, shape (h, w, 3), or None
            The runtime's memory, valid until the next call. None where Pillow is to resize.
        """
        if size.network == rgb.shape[:2]:
            return np.bitwise_xor(rgb, np.uint8(0x80)).view(np.int8)
        if not self._available:
            return None
        if size != self._size:
            self._prepare(size)
        if self._input is None or self._output is None:
            return None
        # int8 is what XNNPACK takes; flipping the top bit subtracts 128, on the way into the graph.
        np.bitwise_xor(rgb, np.uint8(0x80), out=self._input)
        self._interpreter.invoke()
        return self._output.view(np.int8)

    def _prepare(self, size: InputSize) -> None:
        """Make the graph for images of one size, which takes a millisecond; or leave it to Pillow.

        The graph of the size before is given up: it has about four times the memory of its image.
        """
        self._size, self._interpreter, self._input, self._output = size, None, None, None
        (height, width), (rows, columns) = size.image, size.network
        if height > _MOST * rows or width > _MOST * columns:
            return
        rows_between = between(height, rows, self._averaged)
        columns_between = between(width, columns, self._averaged)
        if rows_between is None or columns_between is None:
            return
        steps = 1 if (rows_between, columns_between) == (rows, columns) else 2
        asset = importlib.resources.files("edgemask") / "assets" / f"shrink{steps}.tflite"
        template = np.frombuffer(asset.read_bytes(), "<i4")
        words = template.copy()
        lengths = numbers(height, width, rows, rows_between, columns, columns_between)
        for marker, number in zip(MARKERS, lengths, strict=True):
            words[template == marker] = number
        interpreter = load_runtime().interpreter(
            model_content=words.tobytes(), num_threads=self._threads
        )
        interpreter.allocate_tensors()
        source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        self._input = tensor_view(interpreter, source["index"]).view(np.uint8)
        self._input = self._input.reshape(*size.image, 3)
        self._output = tensor_view(interpreter, result["index"]).view(np.uint8)
        self._output.flags.writeable = False
        self._interpreter = interpreter
