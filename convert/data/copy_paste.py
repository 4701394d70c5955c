"""Copy-paste (Ghiasi et al. 2021): objects of one training sample put over another one.

New neighbours, new backgrounds and new occlusions from the masks that there are.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from edgemask.masks import paste

from .bitmaps import MASK_SIZE

LEAST_VISIBLE = 0.25  # of an object that is covered more than this leaves, nothing is learnt
LEAST_SIDE = 4.0  # pixels
NEAR = 3  # pixels: a joint this close to a mask belongs to what can be seen
ROUGHNESS = 2.0  # pixels by which a mask drawn from its bitmap may miss its object's box


def paste_objects(
    sample: dict[str, np.ndarray], donor: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Put about half of the donor's objects that have a mask over a sample, in the same place.

    Objects of the sample keep what is still visible of them: mask, box and keypoints. Those that
    are nearly hidden become ignore regions.

    Parameters
    ----------
    sample, donor : dict of arrays
        Of :func:`.augment.make_sample`, of the same crop size. They are not changed.
    rng : numpy.random.Generator

    Returns
    -------
    dict of arrays
        As `sample`; the same object where nothing can be pasted.
    """
    able = np.flatnonzero((donor["valid"] > 0) & (donor["has_mask"] > 0))
    chosen = able[rng.random(len(able)) < 0.5]
    if not len(chosen) and len(able):
        chosen = rng.choice(able, 1)
    used = np.flatnonzero(sample["valid"] > 0)
    chosen = chosen[: len(sample["valid"]) - len(used)]
    if not len(chosen):
        return sample
    crop = sample["image"].shape[0]
    new = {key: np.array(value) for key, value in sample.items()}
    over = _masks(donor, chosen, crop).any(axis=0)
    new["image"][over] = donor["image"][over]
    if "closeup" in new:
        zoom = len(new["closeup"]) // crop
        near_over = over.repeat(zoom, axis=0).repeat(zoom, axis=1)
        new["closeup"][near_over] = donor["closeup"][near_over]

    # Joints behind something that was not pasted lie on the sample's background now.
    pasted = dict(donor, keypoints=donor["keypoints"].copy())
    grown = Image.fromarray(over).convert("L").filter(ImageFilter.MaxFilter(2 * NEAR + 1))
    near = np.asarray(grown) > 0
    for row in chosen:
        points = pasted["keypoints"][row]
        points[~_at(points, near)] = 0

    kept = [n for n in used if _cover(new, int(n), over)]
    hidden = np.setdiff1d(used, kept)
    sources = [(new, kept), (pasted, list(chosen))]
    for key in ("boxes", "full_boxes", "labels", "valid", "has_mask", "bitmaps", "keypoints"):
        values = np.concatenate([source[key][rows] for source, rows in sources])
        new[key] = np.zeros_like(sample[key])
        new[key][: len(values)] = values
    free = np.flatnonzero(~sample["ignore"].any(axis=1))[: len(hidden)]
    new["ignore"][free] = sample["boxes"][hidden[: len(free)]]
    if len(free) < len(hidden):  # as in make_sample: nothing may be learnt as background then
        new["exhaustive"] = np.zeros_like(new["exhaustive"])
    return new


def _masks(sample: dict[str, np.ndarray], rows: np.ndarray | list[int], crop: int) -> np.ndarray:
    """The masks of some objects in the crop, bool (N, S, S)."""
    probabilities = sample["bitmaps"][rows].astype(np.float32) / np.float32(255)
    masks = paste(probabilities, sample["full_boxes"][rows], crop, crop)
    return masks.to_dense()


def _cover(sample: dict[str, np.ndarray], row: int, over: np.ndarray) -> bool:
    """Take covered pixels from one object, in place; False where too little is left of it."""
    crop = len(over)
    x0, y0, x1, y1 = (int(v) for v in np.round(sample["boxes"][row]))
    if not over[y0:y1, x0:x1].any():
        return True
    points = sample["keypoints"][row]
    points[_at(points, over)] = 0
    if not sample["has_mask"][row]:
        return bool(over[y0:y1, x0:x1].mean() < 0.5)
    mask = _masks(sample, [row], crop)[0]
    visible = mask & ~over
    if visible.sum() < LEAST_VISIBLE * mask.sum() or not visible.any():
        return False
    if visible.sum() == mask.sum():
        return True
    before, after = _extent(mask), _extent(visible)
    box = sample["boxes"][row]
    # An edge that nothing has covered stays where people have drawn it.
    box = np.where(np.abs(after - before) > ROUGHNESS, after, box).astype(np.float32)
    if (box[2:] - box[:2] < LEAST_SIDE).any():
        return False
    pixels = Image.fromarray(visible.astype(np.uint8) * np.uint8(255))
    bitmap = pixels.resize((MASK_SIZE, MASK_SIZE), Image.Resampling.BOX, box=tuple(box.tolist()))
    sample["bitmaps"][row] = np.asarray(bitmap)
    sample["boxes"][row] = sample["full_boxes"][row] = box
    return True


def _at(points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Values of a (S, S) array at keypoints (K, 3) that lie inside."""
    x, y = np.clip(points[:, :2].astype(int), 0, len(pixels) - 1).T
    return pixels[y, x]


def _extent(mask: np.ndarray) -> np.ndarray:
    """x0, y0, x1, y1 of what is set."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
