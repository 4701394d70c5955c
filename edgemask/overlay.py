"""Drawing instances over a photograph: translucent masks, outlines, keypoints and labels.

A mask is softened to a ramp across its edge, an 8-bit image per crop, and everything that is drawn
of it, fill, outline and the dark casing around the outline, is a table of 256 colours over that
ramp. So the edges are anti-aliased, the staircase of the pixels disappears, and no full-size float
image exists at any time.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from edgemask.errors import InputError
from edgemask.instances import Instances
from edgemask.labels import draw_labels
from edgemask.skeleton import draw_skeleton

__all__ = ["PALETTE", "draw"]

Pixels = NDArray[np.uint8]

PALETTE: tuple[tuple[int, int, int], ...] = (
    (0, 158, 115),  # bluish green
    (230, 159, 0),  # orange
    (0, 114, 178),  # blue
    (204, 121, 167),  # reddish purple
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermillion
    (86, 180, 233),  # sky blue
)
"""Okabe and Ito's colours, which people with any colour vision can tell apart (jfly, 2008)."""

_BAND_PIXELS = 2**17
_OUTLINE_WHITE = 0.25


@dataclass(frozen=True)
class _Style:
    """Sizes in pixels, all in proportion to the image so that it looks the same at any size."""

    line: float
    casing: float
    blur: float
    font: float
    smallest_font: float

    @classmethod
    def for_image(cls, height: int, width: int) -> _Style:
        side = math.sqrt(height * width)
        return cls(
            line=max(1.8, side * 0.0048),
            casing=max(0.7, side * 0.0016),
            blur=max(0.9, side * 0.0036),
            font=max(10.0, side * 0.027),
            smallest_font=max(10.0, side * 0.018),
        )


def draw(
    rgb: Pixels,
    instances: Instances,
    *,
    alpha: float = 0.45,
    labels: bool = True,
    keypoint_score: float = 0.3,
    out: Pixels | None = None,
) -> Pixels:
    """Draw instances over the image they were found in.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    instances : Instances
        Of an image of the same size. An instance keeps its colour by its track id if it has one.
    alpha : float
        Opacity of the masks, 0 (outlines only) to 1.
    labels : bool
        Whether to write class and score beside each instance.
    keypoint_score : float
        Keypoints less sure than this, 0 to 1, are not drawn.
    out : ndarray of uint8, shape (H, W, 3), optional
        Where to draw; `rgb` itself saves a copy of the image.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)

    Raises
    ------
    InputError
        The image is not uint8 (H, W, 3), the instances are of another size, or alpha or
        keypoint_score is out of range.
    """
    for name, array in (("image", rgb), ("out", rgb if out is None else out)):
        if array.dtype != np.uint8 or array.shape != (*instances.size, 3):
            raise InputError(
                f"the {name} is {array.dtype} {array.shape}, the instances are of an image of "
                f"shape {(*instances.size, 3)}: give uint8 of that shape"
            )
    for name, value in (("alpha", alpha), ("keypoint_score", keypoint_score)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}: give a number from 0 to 1")
    if out is None:
        out = rgb.copy()
    elif out is not rgb:
        out[:] = rgb
    if not len(instances):
        return out
    style = _Style.for_image(*instances.size)
    colours = [PALETTE[index] for index in _colour_indices(instances)]
    # The largest first, so that whoever stands in front of it stays visible.
    for n in np.argsort(-instances.masks.areas, kind="stable").tolist():
        crop, (x0, y0) = instances.masks.crops[n], instances.masks.origins[n].tolist()
        if instances.masks.areas[n]:
            _draw_mask(out, crop, x0, y0, colours[n], style, alpha)
        if instances.keypoints is not None:
            # A thinner line for whoever is small in the picture.
            side = float((instances.boxes[n, 2:] - instances.boxes[n, :2]).max())
            line = min(style.line, max(1.2, side * 0.02))
            draw_skeleton(out, instances.keypoints[n], line, style.casing, keypoint_score)
    if labels:
        gap = style.line + style.casing
        draw_labels(out, instances, colours, style.font, style.smallest_font, gap)
    return out


def _colour_indices(instances: Instances) -> list[int]:
    """Give each instance a colour: by track, else one that its neighbours do not have."""
    boxes = instances.boxes
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    indices: list[int] = []
    for n, track in enumerate(instances.track_ids.tolist()):
        if track >= 0:
            indices.append(track % len(PALETTE))
            continue
        if n < len(PALETTE):
            indices.append(n)
            continue
        # More instances than colours: reuse the one whose nearest bearer is farthest away.
        distance = np.hypot(*(centres[:n] - centres[n]).T)
        used = np.array(indices)
        nearest = [float(distance[used == c].min(initial=math.inf)) for c in range(len(PALETTE))]
        indices.append(int(np.argmax(nearest)))
    return indices


def _draw_mask(
    image: Pixels,
    crop: NDArray[np.bool_],
    x0: int,
    y0: int,
    colour: tuple[int, int, int],
    style: _Style,
    alpha: float,
) -> None:
    """Blend one mask into the image, inside its crop and the few pixels the outline needs."""
    height, width = image.shape[:2]
    margin = math.ceil(2 * style.blur + style.line + style.casing) + 1
    left, top = max(x0 - margin, 0), max(y0 - margin, 0)
    right = min(x0 + crop.shape[1] + margin, width)
    bottom = min(y0 + crop.shape[0] + margin, height)
    padded = np.zeros((bottom - top, right - left), np.uint8)
    inner = padded[y0 - top : y0 - top + crop.shape[0], x0 - left : x0 - left + crop.shape[1]]
    np.multiply(crop, 255, out=inner, casting="unsafe")
    ramp = np.asarray(Image.fromarray(padded).filter(ImageFilter.GaussianBlur(style.blur)))
    keep, paint = _profile(colour, style, alpha)
    rows = max(1, _BAND_PIXELS // ramp.shape[1])
    for start in range(0, ramp.shape[0], rows):
        band = ramp[start : start + rows]
        target = image[top + start : top + start + len(band), left:right]
        # take() costs a third of indexing, and three channels a fraction of broadcasting one.
        blended = target * keep.take(band, axis=0, mode="clip")
        blended += paint.take(band, axis=0, mode="clip")
        blended += 128
        blended >>= 8
        target[:] = blended


@functools.lru_cache(maxsize=64)
def _profile(
    colour: tuple[int, int, int], style: _Style, alpha: float
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Return for each of the ramp's 256 values the share of the photograph and what is added.

    Returns
    -------
    keep : ndarray of uint16, shape (256, 3)
        0 to 256, the same for all channels.
    paint : ndarray of uint16, shape (256, 3)
        Colour times opacity times 256; ``(keep * old + paint) >> 8`` never exceeds 255.
    """
    value = (np.arange(256, dtype=np.float32) / 255).clip(0.5 / 255, 1 - 0.5 / 255)
    # A blurred straight edge is the normal distribution function, so its inverse, here by the
    # logistic approximation, is the signed distance from the edge in pixels.
    distance = np.log(value / (1 - value)) * np.float32(style.blur / 1.702)

    def band(low: float, high: float) -> NDArray[np.float32]:
        """Coverage of a one-pixel sample by the strip from low to high."""
        inside, beyond = distance - low + 0.5, distance - high + 0.5
        cover: NDArray[np.float32] = np.clip(inside, 0, 1) - np.clip(beyond, 0, 1)
        return cover

    base = np.array(colour, np.float32)
    bright = base + (255 - base) * np.float32(_OUTLINE_WHITE)
    opacity = np.zeros(256, np.float32)
    premultiplied = np.zeros((256, 3), np.float32)
    layers = (
        (np.clip(distance + 0.5, 0, 1) * np.float32(alpha), base),
        (band(-style.line / 2 - style.casing, style.line / 2 + style.casing) * 0.45, base * 0),
        (band(-style.line / 2, style.line / 2), bright),
    )
    for cover, tint in layers:
        premultiplied = premultiplied * (1 - cover)[:, None] + tint * cover[:, None]
        opacity = opacity * (1 - cover) + cover
    opacity[0], premultiplied[0] = 0, 0  # far outside nothing changes, not even by rounding
    keep = np.repeat(np.rint((1 - opacity) * 256).astype(np.uint16)[:, None], 3, axis=1)
    paint = np.minimum(np.rint(premultiplied * 256), 65535 - 128 - 255.0 * keep)
    return keep, paint.astype(np.uint16)
