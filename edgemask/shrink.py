"""Resizing an image to the network's input in the TFLite runtime.

Pillow filters an RGB image pixel by pixel, on copies with four bytes a pixel. XNNPACK's bilinear
resize is fast where there are many channels, so rows and columns are resized one after the other:
first the rows, a whole row of pixels being the channels, then, transposed, the columns.
"""

from __future__ import annotations

import importlib.resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask.errors import RuntimeUnavailable
from edgemask.geometry import InputSize, resize
from edgemask.interpreter import load_runtime, tensor_view

__all__ = ["MARKERS", "Shrinker", "numbers"]

MARKERS = (10007, 10009, 30027, 10037, 20074, 30111, 10039, 20078)
"""What the graphs in ``assets`` have in place of the :func:`numbers`, in that order."""

_MOST = 6.0  # beyond it, more than two samples a pixel would be needed


def numbers(height: int, width: int, rows: int, columns: int) -> tuple[int, ...]:
    """Return all numbers in a graph that depend on the sizes of its image and its result."""
    return height, width, 3 * width, rows, 2 * rows, 3 * rows, columns, 2 * columns


class Shrinker:
    """Resizes images, with averaging; quickest when one after the other has the same size.

    A pixel of the result is the mean of 2 x 2 bilinear samples, at a quarter and three quarters of
    the part of the image that it covers: as smooth as Pillow's bilinear filter up to a third of
    the size. What is less than a sixth in size, Pillow resizes (:func:`edgemask.geometry.resize`),
    and so it does where XNNPACK is not available. Rounded after each axis, in integers: the same on
    every machine that has XNNPACK. Not safe to share between threads.

    Parameters
    ----------
    threads : int
        Threads of the runtime, 1 or more.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
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
        pairs = tuple(zip(size.image, size.network, strict=True))
        if not self._available or any(old > _MOST * new for old, new in pairs):
            return None
        if size != self._size:
            self._prepare(size, 2 if any(old > new for old, new in pairs) else 1)
        assert self._input is not None
        assert self._output is not None
        # int8 is what XNNPACK takes; flipping the top bit subtracts 128, on the way into the graph.
        np.bitwise_xor(rgb, np.uint8(0x80), out=self._input)
        self._interpreter.invoke()
        return self._output.view(np.int8)

    def _prepare(self, size: InputSize, samples: int) -> None:
        """Make the graph for images of one size, which takes half a millisecond."""
        self._size = self._input = self._output = self._interpreter = None
        asset = importlib.resources.files("edgemask") / "assets" / f"shrink{samples}.tflite"
        template = np.frombuffer(asset.read_bytes(), "<i4")
        words = template.copy()
        for marker, number in zip(MARKERS, numbers(*size.image, *size.network), strict=True):
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
        self._interpreter, self._size = interpreter, size
