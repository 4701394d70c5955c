"""A COCO dataset that the tests draw: coloured shapes on texture, with exact masks.

    python tests/shapes.py shapes --images 60

writes ``shapes/images/*.png`` and ``shapes/annotations.json``. Warm discs are category 1, cool
triangles category 2; shapes may cover one another a little, and every mask is the visible part.
Nothing but NumPy, Pillow and edgemask is needed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask.rle import encode_crop

CATEGORIES = [{"id": 1, "name": "disc"}, {"id": 2, "name": "triangle"}]
MAX_COVERED = 0.3  # share of a shape that a later one may hide


def texture(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Return a cloudy, slightly noisy background of muted colours, (H, W, 3)."""
    cells = random.integers(60, 196, (4, 5, 1)) + random.integers(-12, 13, (4, 5, 3))
    clouds = Image.fromarray(cells.astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noise = random.normal(0, 8, (height, width, 3))
    return np.clip(np.asarray(clouds) + noise, 0, 255).astype(np.uint8)


def shape_mask(
    kind: int, centre: tuple[float, float], radius: float, angle: float, height: int, width: int
) -> NDArray[np.bool_]:
    """Return the pixels of a disc (1) or an equilateral triangle (2), bool (H, W)."""
    y, x = np.ogrid[0.5:height, 0.5:width]
    dy, dx = y - centre[0], x - centre[1]
    if kind == 1:
        return np.asarray(dx**2 + dy**2 <= radius**2)
    inside = np.ones((height, width), bool)
    for corner in range(3):
        turn = angle + corner * 2 * np.pi / 3
        inside &= dx * np.cos(turn) + dy * np.sin(turn) <= radius / 2
    return inside


def draw_image(
    random: np.random.Generator, height: int = 128, width: int = 160
) -> tuple[NDArray[np.uint8], list[tuple[int, NDArray[np.bool_]]]]:
    """Draw one image.

    Returns
    -------
    rgb : ndarray of uint8, shape (H, W, 3)
    shapes : list of (category id, visible mask)
    """
    rgb = texture(random, height, width).astype(np.float32)
    shapes: list[tuple[int, NDArray[np.bool_]]] = []
    for _ in range(random.integers(1, 5)):
        kind = int(random.integers(1, 3))
        radius = random.uniform(0.11, 0.28) * height
        centre = random.uniform(0.1, 0.9) * height, random.uniform(0.1, 0.9) * width
        mask = shape_mask(kind, centre, radius, random.uniform(0, 2 * np.pi), height, width)
        covered = [(mask & other).sum() > MAX_COVERED * other.sum() for _, other in shapes]
        if mask.sum() < 100 or any(covered):
            continue
        shapes = [(k, other & ~mask) for k, other in shapes]
        shapes.append((kind, mask))
        colour = random.uniform((200, 60, 0), (255, 140, 60))
        colour = colour if kind == 1 else colour[::-1]
        rgb[mask] = colour + random.normal(0, 6, (int(mask.sum()), 3))
    return np.clip(rgb, 0, 255).astype(np.uint8), shapes


def annotation(number: int, image: int, kind: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the COCO annotation of one visible mask, as RLE."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    counts = encode_crop(mask[top:bottom, left:right], left, top, *mask.shape)
    return {
        "id": number,
        "image_id": image,
        "category_id": kind,
        "bbox": [left, top, right - left, bottom - top],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(mask.shape), "counts": counts.decode("ascii")},
    }


def draw_dataset(
    folder: Path, images: int = 60, seed: int = 0, height: int = 128, width: int = 160
) -> Path:
    """Draw a dataset into a folder and return the path of its annotations.

    Parameters
    ----------
    folder : Path
        Gets ``annotations.json`` and ``images/``.
    images : int
        How many to draw, each with one to four shapes.
    seed : int
        Another seed, another dataset.
    """
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, images + 1):
        rgb, shapes = draw_image(random, height, width)
        name = f"shapes_{seed}_{number:04d}.png"
        Image.fromarray(rgb).save(folder / "images" / name)
        listed.append({"id": number, "file_name": name, "height": height, "width": width})
        for kind, mask in shapes:
            annotations.append(annotation(len(annotations) + 1, number, kind, mask))
    data = {"images": listed, "annotations": annotations, "categories": CATEGORIES}
    path = folder / "annotations.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def main() -> None:
    """Draw a dataset from the command line."""
    parser = argparse.ArgumentParser(description="Draw a COCO dataset of coloured shapes.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(draw_dataset(options.folder, options.images, options.seed))


if __name__ == "__main__":
    main()
