"""Training samples: a random crop at a random scale, flip, colour; padded arrays out.

Every sample is a pure function of (record, seed), so a run can be resumed or
repeated exactly whatever the number of worker threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from edgemask.keypoints import NAMES, mirrored

from ..config import AugmentConfig
from .dataset import MASK_SIZE, Record

MAX_OBJECTS = 24  # objects kept per crop; the largest first
MAX_IGNORE = 64  # what is beyond the objects, too small or cut off; crowds first
MIRRORED = mirrored(NAMES)
MIN_VISIBLE = 0.25  # a crop that shows less of a box turns it into an ignore region


def _crop_window(record: Record, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Window (x0, y0, x1, y1) in image pixels that becomes the square network input."""
    low, high = np.log(config.min_short_side), np.log(config.max_short_side)
    side = np.exp(rng.uniform(low, high))
    scale = side / min(record.height, record.width)
    aspect = np.exp(rng.uniform(-config.aspect_jitter, config.aspect_jitter))
    w = config.crop / (scale * aspect)
    h = config.crop / (scale / aspect)
    origin = []
    anchor = None
    if len(record.boxes) and rng.random() < 0.7:  # most crops look at some object
        anchor = record.boxes[rng.integers(len(record.boxes))]
    for size, window, lo, hi in ((record.width, w, 0, 2), (record.height, h, 1, 3)):
        if window >= size:
            origin.append(rng.uniform(size - window, 0))
        elif anchor is not None:
            centre = rng.uniform(anchor[lo], anchor[hi])
            origin.append(np.clip(centre - window * rng.uniform(0.2, 0.8), 0, size - window))
        else:
            origin.append(rng.uniform(0, size - window))
    return np.array([origin[0], origin[1], origin[0] + w, origin[1] + h])


def _render(image: Image.Image, window: np.ndarray, crop: int, average: bool) -> np.ndarray:
    """Resample ``window`` of the image to (crop, crop, 3); grey beyond the image's edge.

    With ``average`` every pixel is a mean over all that it covers, as Pillow's resize does it; else
    it is interpolated between the four nearest ones, as fast resizers and cameras do it.
    """
    x0, y0, x1, y1 = window
    inside = (max(x0, 0), max(y0, 0), min(x1, image.width), min(y1, image.height))
    sx, sy = crop / (x1 - x0), crop / (y1 - y0)
    left, top = round((inside[0] - x0) * sx), round((inside[1] - y0) * sy)
    right, bottom = round((inside[2] - x0) * sx), round((inside[3] - y0) * sy)
    size = (max(right - left, 1), max(bottom - top, 1))
    if average:
        patch = image.resize(size, Image.Resampling.BILINEAR, box=inside)
    else:
        extent = Image.Transform.EXTENT
        patch = image.transform(size, extent, inside, Image.Resampling.BILINEAR)
    canvas = np.full((crop, crop, 3), 128, np.uint8)
    canvas[top : top + size[1], left : left + size[0]] = np.asarray(patch)[
        : crop - top, : crop - left
    ]
    return canvas


class _Color(NamedTuple):
    """A change of colours, drawn once for all views of a crop."""

    saturation: float
    contrast: float
    gain: np.ndarray  # (3,)

    @classmethod
    def draw(cls, strength: float, rng: np.random.Generator) -> _Color:
        saturation = 1 + rng.uniform(-strength, strength)
        contrast = 1 + rng.uniform(-strength, strength)
        gain = 1 + rng.uniform(-strength, strength) + rng.uniform(-0.05, 0.05, 3)
        return cls(saturation, contrast, gain)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Change uint8 RGB (S, S, 3)."""
        x = pixels.astype(np.float32)
        grey = x.mean(axis=2, keepdims=True)
        x = grey + (x - grey) * np.float32(self.saturation)
        mean = np.float32(x.mean())
        x = mean + (x - mean) * np.float32(self.contrast)
        return np.clip(x * self.gain.astype(np.float32), 0, 255).astype(np.uint8)


def make_sample(
    record: Record, image: Image.Image, config: AugmentConfig, seed: list[int], zoom: int = 1
) -> dict[str, np.ndarray]:
    """Draw one training sample.

    Parameters
    ----------
    record : Record
    image : RGB PIL image of ``record``
    config : AugmentConfig
    seed : list of int
        Entropy of the random generator, e.g. ``[run seed, epoch, image index]``.
    zoom : int
        From 2 the sample has the same crop this many times as large too, for a teacher.

    Returns
    -------
    dict of arrays, S = ``config.crop``, G = 24, K = 64:
        ``image`` (S, S, 3) uint8; ``boxes`` (G, 4) f32 in crop pixels; ``labels``
        (G,) i32; ``valid``, ``has_mask`` (G,) f32 flags; ``bitmaps`` (G, 64, 64)
        uint8 relative to ``full_boxes`` (G, 4) f32, the boxes before cropping; ``keypoints``
        (G, 17, 3) f32 in crop pixels and visibility, 0 where unlabelled or outside of the crop;
        ``ignore`` (K, 4) f32; ``labeled`` (C,) f32; ``exhaustive`` () f32;
        ``image_id`` () i64; with ``zoom`` also ``closeup`` (zoom S, zoom S, 3) uint8.
    """
    rng = np.random.default_rng(seed)
    crop = config.crop
    window = _crop_window(record, config, rng)
    # Decided only where it is wanted: other runs go on with the random numbers they had.
    average = config.plain_resize <= 0 or rng.random() >= config.plain_resize
    views = {"image": _render(image, window, crop, average)}
    if zoom > 1:
        views["closeup"] = _render(image, window, crop * zoom, average)
    scale = crop / (window[2:] - window[:2])
    to_crop = np.tile(scale, 2)
    shift = np.tile(window[:2], 2)
    full = ((record.boxes - shift) * to_crop).astype(np.float32)
    ignore = ((record.ignore - shift) * to_crop).astype(np.float32)
    bitmaps = record.bitmaps
    points = record.keypoints.copy()
    points[..., :2] = (points[..., :2] - window[:2]) * scale
    if rng.random() < config.flip:
        views = {name: pixels[:, ::-1] for name, pixels in views.items()}
        full = np.stack([crop - full[:, 2], full[:, 1], crop - full[:, 0], full[:, 3]], 1)
        ignore = np.stack([crop - ignore[:, 2], ignore[:, 1], crop - ignore[:, 0], ignore[:, 3]], 1)
        bitmaps = bitmaps[:, :, ::-1]
        points[..., 0] = crop - points[..., 0]
        points = points[:, MIRRORED]
    if config.color > 0:
        color = _Color.draw(config.color, rng)
        views = {name: color.apply(pixels) for name, pixels in views.items()}

    inside = ((points[..., :2] >= 0) & (points[..., :2] < crop)).all(-1)
    points[~inside | (points[..., 2] == 0)] = 0
    visible = np.clip(full, 0, crop)
    extent = visible[:, 2:] - visible[:, :2]
    share = extent.prod(1) / np.maximum((full[:, 2:] - full[:, :2]).prod(1), 1e-6)
    some = (extent > 0).all(1)
    usable = some & (share >= MIN_VISIBLE) & (extent >= 4).all(1)
    order = np.flatnonzero(usable)
    order = order[np.argsort(-extent[order].prod(1), kind="stable")]
    keep, surplus = order[:MAX_OBJECTS], order[MAX_OBJECTS:]
    doubtful = np.concatenate([np.flatnonzero(some & ~usable), surplus])
    ignore = np.clip(np.concatenate([ignore, visible[doubtful]]), 0, crop)
    ignore = ignore[(ignore[:, 2:] > ignore[:, :2]).all(1)]
    # Where even that is too little, nothing may be learnt as background.
    exhaustive = record.exhaustive and len(ignore) <= MAX_IGNORE
    ignore = ignore[:MAX_IGNORE]

    sample = {
        **{name: np.ascontiguousarray(pixels) for name, pixels in views.items()},
        "boxes": np.zeros((MAX_OBJECTS, 4), np.float32),
        "full_boxes": np.zeros((MAX_OBJECTS, 4), np.float32),
        "labels": np.zeros(MAX_OBJECTS, np.int32),
        "valid": np.zeros(MAX_OBJECTS, np.float32),
        "has_mask": np.zeros(MAX_OBJECTS, np.float32),
        "keypoints": np.zeros((MAX_OBJECTS, len(NAMES), 3), np.float32),
        "bitmaps": np.zeros((MAX_OBJECTS, MASK_SIZE, MASK_SIZE), np.uint8),
        "ignore": np.zeros((MAX_IGNORE, 4), np.float32),
        "labeled": record.labeled.astype(np.float32),
        "exhaustive": np.float32(exhaustive),
        "image_id": np.int64(record.image_id),
    }
    n = len(keep)
    sample["boxes"][:n] = visible[keep]
    sample["full_boxes"][:n] = full[keep]
    sample["labels"][:n] = record.labels[keep]
    sample["valid"][:n] = 1
    sample["has_mask"][:n] = record.has_mask[keep]
    sample["bitmaps"][:n] = bitmaps[keep]
    sample["keypoints"][:n] = points[keep]
    sample["ignore"][: len(ignore)] = ignore
    return sample
