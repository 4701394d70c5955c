"""Soft masks in a COCO file: the field ``soft_mask`` of an annotation.

``{"size": S, "data": TEXT}``: S x S probabilities, which divide the annotation's box (the part of
it inside the image) evenly, row by row, as bytes 0..255, compressed by zlib, in base64. A mask of
28 x 28 takes some 400 characters.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_SIZE", "decode_soft_mask", "encode_soft_mask"]

MAX_SIZE = 512


def encode_soft_mask(mask: NDArray[np.float32]) -> dict[str, Any]:
    """Return the JSON value for one soft mask (S, S) of probabilities in [0, 1]."""
    levels = np.rint(np.clip(mask, 0, 1) * np.float32(255)).astype(np.uint8)
    text = base64.b64encode(zlib.compress(levels.tobytes(), 9)).decode("ascii")
    return {"size": len(levels), "data": text}


def decode_soft_mask(value: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Return the mask as uint8 (S, S), 0..255.

    Raises
    ------
    ValueError
        Another structure, or damaged data.
    """
    try:
        size = int(value["size"])
        if not 1 <= size <= MAX_SIZE:
            raise ValueError(f"size {size} is not between 1 and {MAX_SIZE}")
        # Bounded, so that a few bytes cannot unpack to gigabytes.
        raw = zlib.decompressobj().decompress(base64.b64decode(value["data"]), size * size + 1)
        if len(raw) != size * size:
            raise ValueError(f"{len(raw)} bytes for {size}x{size} cells")
    except (KeyError, TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise ValueError(f"not a soft mask: {error}") from error
    return np.frombuffer(raw, np.uint8).reshape(size, size)
