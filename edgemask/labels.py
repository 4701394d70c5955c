"""The labels of an overlay: where each one goes, and drawing it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgemask.instances import Instances

__all__ = ["draw_labels"]

Pixels = NDArray[np.uint8]
Rect = tuple[int, int, int, int]

_LABEL_SHARE = 0.12


def draw_labels(
    image: Pixels,
    instances: Instances,
    colours: Sequence[tuple[int, int, int]],
    font: float,
    smallest_font: float,
    gap: float,
) -> None:
    """Write class and score beside each instance, the best instances choosing their place first.

    Labels must not hide the picture: where they would, only scores are written, and in the end only
    those of the best instances. An instance that has a track is labelled with its number, which
    then stands in place of the score.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Drawn on in place.
    instances : Instances
    colours : sequence of (int, int, int), length N
        RGB of each label.
    font, smallest_font : float
        Size of the text in pixels, and what it may shrink to beside a small instance.
    gap : float
        Pixels between an instance and its label.
    """
    height, width = image.shape[:2]
    boxes = instances.masks.boxes
    sizes = np.clip((boxes[:, 3] - boxes[:, 1]) * 0.2, smallest_font, font).tolist()
    scores = [f"{score:.2f}" for score in instances.scores.tolist()]
    for n, track in enumerate(instances.track_ids.tolist()):
        if track >= 0:
            scores[n] = f"#{track}"
    texts = [f"{name} {score}" for name, score in zip(instances.class_names, scores, strict=True)]
    full = sum(math.prod(_chip(*label).size) for label in zip(texts, sizes, strict=True))
    crowded = full > _LABEL_SHARE * height * width
    taken: list[Rect] = []
    for n in np.argsort(-instances.scores, kind="stable").tolist():
        if sum((r[2] - r[0]) * (r[3] - r[1]) for r in taken) > 2 * _LABEL_SHARE * height * width:
            break
        x0, y0, x1, y1 = boxes[n].tolist()
        anchor = _top(instances, n)
        others = np.delete(boxes, n, axis=0)
        best: tuple[float, Rect, Image.Image] | None = None
        for text in [scores[n]] if crowded else [texts[n], scores[n]]:
            chip = _chip(text, sizes[n])
            if chip.width > width or chip.height > height:
                continue
            rects = []
            for x, y in _places(anchor, (x0, y0, x1, y1), chip.size, gap):
                left = round(min(max(x, 0), width - chip.width))
                top = round(min(max(y, 0), height - chip.height))
                rects.append((left, top, left + chip.width, top + chip.height))
            for rank, cost in enumerate(_costs(np.array(rects, np.float32), taken, others)):
                if best is None or cost + 0.04 * rank < best[0]:
                    best = cost + 0.04 * rank, rects[rank], chip
            if best is not None and best[0] < 1:
                break  # the full text has a place of its own
        # Better no label than one that hides another; the colour still tells them apart.
        if best is not None and (best[0] < 1.35 or not crowded):
            taken.append(best[1])
            _stamp(image, best[1], best[2], colours[n])


def _top(instances: Instances, n: int) -> tuple[float, float]:
    """Return the middle of a mask's topmost row, a head as a rule, in image pixels."""
    crop, (x0, y0) = instances.masks.crops[n], instances.masks.origins[n].tolist()
    rows = np.flatnonzero(crop.any(axis=1))
    if not len(rows):
        box = instances.boxes[n].tolist()
        return (box[0] + box[2]) / 2, box[1]
    columns = np.flatnonzero(crop[rows[0]])
    return x0 + (int(columns[0]) + int(columns[-1]) + 1) / 2, y0 + int(rows[0])


def _places(
    anchor: tuple[float, float],
    box: tuple[float, float, float, float],
    chip: tuple[int, int],
    gap: float,
) -> list[tuple[float, float]]:
    """Return left, top of the places a label may have, the best first."""
    (x, y), (x0, y0, x1, y1), (width, height) = anchor, box, chip
    above, middle = y - height - gap, (y0 + y1 - height) / 2
    raised = above - height * 0.6
    return [
        (x - width / 2, above),
        (x - width * 0.2, above),
        (x - width * 0.8, above),
        (x - width / 2, raised),
        (x0, above),
        (x1 - width, above),
        (x - width * 0.2, raised),
        (x - width * 0.8, raised),
        ((x0 + x1 - width) / 2, middle),
        (x - width / 2, above - height - gap),
        (x - width / 2, y + gap),
        ((x0 + x1 - width) / 2, y1 - height - gap),
        ((x0 + x1 - width) / 2, y1 + gap),
        (x1 + gap, middle),
        (x0 - width - gap, middle),
    ]


def _costs(
    rects: NDArray[np.float32], taken: Sequence[Rect], others: NDArray[np.float32]
) -> list[float]:
    """Return how bad places are: above 1 they cover another label, below 1 only other instances.

    All at once: a call of NumPy for each place would take as long as the rest of the drawing.
    """
    areas = (rects[:, 2:] - rects[:, :2]).prod(axis=1)[:, None]

    def covered(by: NDArray[np.float32]) -> NDArray[np.float32]:
        low = np.maximum(rects[:, None, :2], by[:, :2])
        high = np.minimum(rects[:, None, 2:], by[:, 2:])
        share: NDArray[np.float32] = np.maximum(high - low, np.float32(0)).prod(axis=2) / areas
        return share

    hidden = covered(np.array(taken, np.float32).reshape(-1, 4)).sum(axis=1).tolist()
    hiding = covered(others).max(axis=1, initial=0).tolist()
    return [(1 + h if h > 0 else 0.0) + 0.3 * o for h, o in zip(hidden, hiding, strict=True)]


@functools.lru_cache(maxsize=64)
def _font(size: float) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, float]:
    """Return a font, and the factor by which its text must be enlarged to have the size."""
    try:
        return ImageFont.load_default(size), 1.0
    # Before Pillow 10.1, or without FreeType, there is one bitmap font of about ten pixels.
    except (TypeError, ImportError, OSError):
        return ImageFont.load_default(), size / 10


@functools.lru_cache(maxsize=256)
def _chip(text: str, size: float) -> Image.Image:
    """Return a label as an LA image: luminance is where the text is, alpha where the label is."""
    font, factor = _font(round(size * 2) / 2)
    left, _, right, _ = font.getbbox(text)
    _, cap_top, _, baseline = font.getbbox("H0")
    letters = Image.new("L", (math.ceil(right - left) + 2, math.ceil(baseline * 1.5) + 2))
    ImageDraw.Draw(letters).text((1 - left, 0), text, fill=255, font=font)
    if factor != 1:
        size_now = (round(letters.width * factor), round(letters.height * factor))
        letters = letters.resize(size_now, Image.Resampling.BICUBIC)
    pad_x, cap_height = size * 0.42, (baseline - cap_top) * factor
    width = math.ceil(letters.width + 2 * pad_x)
    height = math.ceil(cap_height + size * 0.68)
    text_layer = Image.new("L", (width, height))
    top = round((height - cap_height) / 2 - cap_top * factor)
    text_layer.paste(letters, (round((width - letters.width) / 2), top))
    scale = 4
    shape = Image.new("L", (width * scale, height * scale))
    ImageDraw.Draw(shape).rounded_rectangle(
        (0, 0, width * scale - 1, height * scale - 1), radius=height * scale * 0.32, fill=255
    )
    return Image.merge("LA", (text_layer, shape.reduce(scale)))


def _stamp(image: Pixels, rect: Rect, chip: Image.Image, colour: tuple[int, int, int]) -> None:
    """Blend a label into the image, with the text black or white, whichever reads better."""
    left, top, right, bottom = rect
    cover = np.asarray(chip).astype(np.float32) / 255
    # Relative luminance (WCAG 2) decides; equal contrast with black and white is at 0.18.
    linear = (np.array(colour, np.float32) / 255) ** np.float32(2.2)
    ink = 0.0 if linear @ np.array([0.2126, 0.7152, 0.0722], np.float32) > 0.18 else 255.0
    text, shape = cover[:, :, :1], cover[:, :, 1:]
    face = np.array(colour, np.float32) * (1 - text) + np.float32(ink) * text
    target = image[top:bottom, left:right]
    target[:] = np.rint(target * (1 - shape) + face * shape)
