"""The picture that is segmented over and over."""

from __future__ import annotations

import importlib.resources
import os
import statistics
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.images import load_image

__all__ = ["Picture", "load_picture"]

_ASSET = "astronaut.jpg"
_SIZE = (640, 480)
_REPEATS = 5


class Picture(NamedTuple):
    """A picture in memory.

    Attributes
    ----------
    name : str
    rgb : ndarray of uint8, shape (H, W, 3)
    decode_ms : float
        CPU milliseconds to read it from its file, median of a few times. Not part of a frame:
        a camera gives arrays.
    """

    name: str
    rgb: NDArray[np.uint8]
    decode_ms: float


def load_picture(path: str | None = None) -> Picture:
    """Read a picture file; without a path, the bundled photograph, resized to 640x480.

    Raises
    ------
    SourceError
        The file cannot be read as an image.
    """
    asset = importlib.resources.files("edgemask") / "assets" / _ASSET
    with importlib.resources.as_file(asset) as bundled:
        file = os.fspath(bundled) if path is None else path
        times = []
        for _ in range(_REPEATS):
            start = time.process_time()
            rgb = load_image(file)
            times.append((time.process_time() - start) * 1e3)
    if path is None:
        rgb = np.asarray(Image.fromarray(rgb).resize(_SIZE, Image.Resampling.BILINEAR))
    return Picture(os.path.basename(file), rgb, round(statistics.median(times), 3))
