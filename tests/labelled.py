"""Drawn photographs labelled as labelme would, and grey ones, for the toolchain's tests.

    python tests/labelled.py shapes --images 60

writes ``shapes/*.png`` and a labelme file beside each.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shapes import draw_image

from edgemask.contours import contours

LABELS = {1: "disc", 2: "triangle"}


def to_grey(rgb: NDArray[np.uint8], depth: int) -> Image.Image:
    """Return a drawing as grey of 8 or 16 bits; shapes are brighter than most of the ground."""
    grey = rgb.max(axis=2)
    if depth == 8:
        return Image.fromarray(grey)
    return Image.fromarray(grey.astype(np.uint16) * np.uint16(257))


def mask_shape(label: str, mask: NDArray[np.bool_], **extra: Any) -> dict[str, Any]:
    """Return labelme's shape of type mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x0, y0, x1, y1 = columns[0], rows[0], columns[-1], rows[-1]
    png = io.BytesIO()
    Image.fromarray(mask[y0 : y1 + 1, x0 : x1 + 1]).save(png, "PNG")
    shape = labelme_shape(label, [[int(x0), int(y0)], [int(x1), int(y1)]], "mask", **extra)
    return {**shape, "mask": base64.b64encode(png.getvalue()).decode()}


def box_shape(kind: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return labelme's rectangle around a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    corners = [[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]]
    return labelme_shape(LABELS[kind], [[float(v) for v in c] for c in corners], "rectangle")


def labelme_shape(label: str, points: Any, kind: str = "polygon", **extra: Any) -> dict[str, Any]:
    """Return one entry of labelme's ``shapes``."""
    head = {"label": label, "points": points, "group_id": None, "description": ""}
    return {**head, "shape_type": kind, "flags": {}, "mask": None, **extra}


def labelme_file(name: str, width: int, height: int, shapes: list[Any], **extra: Any) -> str:
    """Return the text of a labelme file."""
    head = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": name}
    return json.dumps(
        {**head, "imageData": None, "imageHeight": height, "imageWidth": width, **extra}
    )


def outlines(kind: int, mask: NDArray[np.bool_], group: int) -> list[dict[str, Any]]:
    """Return the shapes that a careful person would draw around one visible mask."""
    label = LABELS[kind]
    rings = contours(mask)
    if any(_signed_area(ring) < 0 for ring in rings):
        return [mask_shape(label, mask)]  # a polygon cannot have a hole
    group_id = group if len(rings) > 1 else None
    return [labelme_shape(label, ring.tolist(), group_id=group_id) for ring in rings]


def _signed_area(ring: NDArray[np.float32]) -> float:
    """Return the shoelace sum, negative for the outline of a hole."""
    after = np.roll(ring, -1, axis=0)
    return float((ring[:, 0] * after[:, 1] - after[:, 0] * ring[:, 1]).sum())


def draw_labelme(
    folder: Path,
    images: int = 60,
    seed: int = 0,
    height: int = 128,
    width: int = 160,
    boxes: bool = False,
) -> Path:
    """Draw photographs of discs and triangles, with labelme files of outlines or boxes.

    Returns
    -------
    Path
        `folder`.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(images):
        rgb, shapes = draw_image(random, height, width)
        name = f"photo_{seed}_{number:04d}.png"
        Image.fromarray(rgb).save(folder / name)
        drawn = [
            shape
            for n, (kind, mask) in enumerate(shapes)
            for shape in ([box_shape(kind, mask)] if boxes else outlines(kind, mask, n))
        ]
        text = labelme_file(name, width, height, drawn)
        (folder / name).with_suffix(".json").write_text(text, encoding="utf-8")
    return folder


def main() -> None:
    """Draw from the command line."""
    parser = argparse.ArgumentParser(description="Draw photographs with labelme files.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(draw_labelme(options.folder, options.images, options.seed))


if __name__ == "__main__":
    main()
