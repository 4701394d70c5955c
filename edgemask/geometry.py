"""From an image of any size to the network's input, and back.

The network takes any height and width that are multiples of its stride, so an image is resized
without padding. Each axis has its own scale factor; boxes go back by those two factors alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask import boxes as bx
from edgemask.errors import InputError

__all__ = ["InputSize", "fit_input", "resize"]

_GAP = 2.0  # how much of the shrinking the filter must be left to do
_BAND_PIXELS = 2**18


@dataclass(frozen=True)
class InputSize:
    """How one image size maps to a network input.

    Attributes
    ----------
    image : (int, int)
        Height and width of the image in pixels.
    network : (int, int)
        Height and width of the network's input in pixels.
    """

    image: tuple[int, int]
    network: tuple[int, int]

    def to_network(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map boxes, shape (N, 4), from image pixels to input pixels."""
        (height, width), (rows, columns) = self.image, self.network
        return bx.scale(boxes, columns / width, rows / height)

    def to_image(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map boxes, shape (N, 4), from input pixels to image pixels, and clip to the image."""
        (height, width), (rows, columns) = self.image, self.network
        return bx.clip(bx.scale(boxes, width / columns, height / rows), height, width)


def fit_input(
    height: int, width: int, short_side: int, stride: int, max_aspect: float = 2.0
) -> InputSize:
    """Choose the network input for an image.

    Parameters
    ----------
    height, width : int
        Size of the image in pixels, 1 or more.
    short_side : int
        Wanted shorter side of the input in pixels.
    stride : int
        Both sides of the input are multiples of this.
    max_aspect : float
        The longer side is at most this times `short_side`; more elongated images shrink until
        they fit, so that a panorama cannot cost more than `max_aspect` squares.

    Returns
    -------
    InputSize

    Raises
    ------
    InputError
        If the image is empty or `short_side` is smaller than `stride`.
    """
    if height < 1 or width < 1:
        raise InputError(f"the image is {width}x{height} pixels; give one that is not empty")
    if short_side < stride:
        raise InputError(f"short side {short_side} is too small; give {stride} or more")
    factor = short_side / min(height, width)
    factor = min(factor, short_side * max_aspect / max(height, width))

    def side(length: int) -> int:
        return max(stride, round(length * factor / stride) * stride)

    return InputSize((height, width), (side(height), side(width)))


def resize(rgb: NDArray[np.uint8], size: InputSize) -> NDArray[np.uint8]:
    """Resample an image (H, W, 3) to the network's input size, with anti-aliasing.

    The same filter as in training (Pillow's bilinear, which averages when it shrinks). An image
    more than four times as large is first averaged over whole pixels, to at least twice the wanted
    size: Pillow's ``reducing_gap=2``, bit for bit. That takes half the time or less; the pixels of
    a photograph change by less than one level of 255 in the mean.
    """
    rows, columns = size.network
    height, width = rgb.shape[:2]
    if (height, width) == (rows, columns):
        return rgb
    across = int(width / columns / _GAP) or 1
    down = int(height / rows / _GAP) or 1
    if across > 1 or down > 1:
        rgb = _reduce(rgb, across, down)
    picture = Image.fromarray(rgb).resize(
        (columns, rows), Image.Resampling.BILINEAR, box=(0, 0, width / across, height / down)
    )
    return np.asarray(picture)


def _reduce(rgb: NDArray[np.uint8], across: int, down: int) -> NDArray[np.uint8]:
    """Average over blocks of `down` x `across` pixels; what is left over is a smaller block.

    In bands of rows: Pillow's copy of a photograph of 12 megapixels would be 48 MB, and getting
    that much fresh memory takes longer than the averaging.
    """
    band = max(1, _BAND_PIXELS // (rgb.shape[1] * down)) * down
    bands = [
        np.asarray(Image.fromarray(rgb[top : top + band]).reduce((across, down)))
        for top in range(0, len(rgb), band)
    ]
    return np.concatenate(bands)
