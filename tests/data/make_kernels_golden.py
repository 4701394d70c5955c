"""Make kernels_golden.npz: what PyTorch, torchvision and detectron2 answer to fixed questions.

The file was made with Python 3.11, torch 2.14.1, torchvision 0.29.1 and numpy 2.4.6 on x86-64:

    pip install torch==2.14.1 torchvision==0.29.1 numpy==2.4.6
    python tests/data/make_kernels_golden.py

The tests read the file and need none of these. detectron2 has no wheels; its mask pasting is
reproduced from its definition, ``grid_sample(align_corners=False)`` over the whole image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, nms, roi_align

Array = np.ndarray[Any, Any]


def random_boxes(rng: np.random.Generator, count: int, extent: float, side: float) -> Array:
    """Boxes with corners in [0, extent] and sides in [1, side]."""
    low = rng.uniform(0, extent, (count, 2))
    return np.concatenate([low, low + rng.uniform(1, side, (count, 2))], 1).astype(np.float32)


def roi_align_cases(rng: np.random.Generator) -> dict[str, Array]:
    """Boxes inside, on the border and outside of three int8 levels, in several grids."""
    strides, channels, zero_point = [8, 16, 32], 4, -37
    shapes = [(20, 26), (10, 13), (5, 7)]
    levels = [rng.integers(-128, 128, (h, w, channels)).astype(np.int8) for h, w in shapes]
    boxes = np.concatenate(
        [
            random_boxes(rng, 8, 120, 80),
            [
                [0, 0, 208, 160],  # the whole image
                [-60, -40, 30, 30],  # samples more than a cell outside count as 0
                [190, 150, 260, 240],
                [50.5, 60.25, 50.75, 60.5],  # smaller than a cell
                [10, 70, 200, 74],  # wide and flat
                [500, 500, 600, 600],  # entirely outside
            ],
        ]
    ).astype(np.float32)
    level_ids = rng.integers(0, 3, len(boxes))
    level_ids[:3] = 0, 1, 2
    out: dict[str, Array] = {f"roi_level{i}": level for i, level in enumerate(levels)}
    out |= {"roi_boxes": boxes, "roi_level_ids": level_ids}
    out |= {"roi_strides": np.array(strides), "roi_zero_point": np.array(zero_point)}
    for size, ratio in ((7, 2), (14, 2), (7, 1), (5, 3)):
        answers = []
        for box, level in zip(boxes, level_ids, strict=True):
            features = torch.tensor(levels[level].astype(np.float32) - zero_point)
            answer = roi_align(
                features.permute(2, 0, 1)[None],
                [torch.tensor(box[None])],
                size,
                1 / strides[level],
                ratio,
                aligned=True,
            )
            answers.append(answer[0].permute(1, 2, 0).numpy())
        out[f"roi_out_{size}_{ratio}"] = np.stack(answers)
    return out


def nms_cases(rng: np.random.Generator) -> dict[str, Array]:
    """Random boxes, and boxes on a coarse grid with coarse scores: full of ties of both."""
    out: dict[str, Array] = {}
    thresholds = [0.3, 0.5, 0.7]
    out["nms_thresholds"] = np.array(thresholds)
    # 1200 > 1000 boxes: there torchvision's batched_nms works class by class.
    for name, count, tied in (
        ("random", 300, False),
        ("tied", 300, True),
        ("many", 1200, False),
        ("many_tied", 1200, True),
    ):
        boxes = random_boxes(rng, count, 300, 200)
        scores: Array = rng.random(count).astype(np.float32)
        if tied:
            boxes = np.round(boxes / 20) * 20
            boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])  # some are empty
            scores = np.round(scores * 8) / 8
        classes = rng.integers(0, 5, count)
        arguments = torch.tensor(boxes), torch.tensor(scores)
        out |= {f"nms_{name}_boxes": boxes, f"nms_{name}_scores": scores}
        out[f"nms_{name}_classes"] = classes.astype(np.int8)
        for i, threshold in enumerate(thresholds):
            kept = nms(*arguments, threshold)
            out[f"nms_{name}_kept{i}"] = kept.numpy().astype(np.int16)
            kept = batched_nms(*arguments, torch.tensor(classes), threshold)
            out[f"nms_{name}_batched{i}"] = kept.numpy().astype(np.int16)
    return out


def paste_masks(masks: Array, boxes: Array, height: int, width: int, threshold: float) -> Array:
    """detectron2's paste_masks_in_image (layers/mask_ops.py), on the whole image."""
    x0, y0, x1, y1 = torch.split(torch.tensor(boxes), 1, dim=1)
    rows = (torch.arange(height, dtype=torch.float32) + 0.5 - y0) / (y1 - y0) * 2 - 1
    columns = (torch.arange(width, dtype=torch.float32) + 0.5 - x0) / (x1 - x0) * 2 - 1
    count = len(masks)
    grid = torch.stack(
        [
            columns[:, None, :].expand(count, height, width),
            rows[:, :, None].expand(count, height, width),
        ],
        dim=3,
    )
    sampled = functional.grid_sample(torch.tensor(masks)[:, None], grid, align_corners=False)
    return np.asarray(sampled[:, 0] >= threshold)


def paste_cases(rng: np.random.Generator) -> dict[str, Array]:
    """Soft discs, noise, and sigmoids of int8 logits, in boxes in and around the image."""
    height, width, size = 120, 160, 28
    y, x = np.mgrid[:size, :size] + 0.5
    masks = []
    for kind in range(9):
        logits: Array = rng.normal(0, 3, (size, size))
        if kind % 3 == 0:
            radius = rng.uniform(6, 13)
            logits = radius - np.hypot(x - rng.uniform(10, 18), y - rng.uniform(10, 18))
        if kind % 3 == 1:
            logits = rng.integers(-128, 128, (size, size)) * 0.0625
        masks.append(1 / (1 + np.exp(-logits)))
    boxes = np.concatenate(
        [
            random_boxes(rng, 4, 60, 80),
            [
                [-40.3, -20.7, 90.2, 80.1],
                [100.5, 60.5, 230.5, 190.5],
                [-50, -50, 300, 300],
                [70.2, 30.4, 71.1, 90.9],  # narrower than a pixel
                [200, 10, 260, 60],  # outside of the image
            ],
        ]
    ).astype(np.float32)
    out: dict[str, Array] = {"paste_boxes": boxes, "paste_size": np.array([height, width])}
    out["paste_masks"] = np.stack(masks).astype(np.float32)
    for threshold in (0.5, 0.3, 0.7):
        dense = paste_masks(out["paste_masks"], boxes, height, width, threshold)
        out[f"paste_out_{threshold}"] = np.packbits(dense)
    return out


def box_cases(rng: np.random.Generator) -> dict[str, Array]:
    """torchvision's BoxCoder, with deltas beyond the limit of the growth."""
    anchors, boxes = random_boxes(rng, 40, 300, 200), random_boxes(rng, 40, 300, 200)
    deltas = rng.normal(0, 3, (40, 4)).astype(np.float32)
    deltas[:4] *= 20
    weights = (10.0, 10.0, 5.0, 5.0)
    coder = BoxCoder(weights)
    encoded = coder.encode_single(torch.tensor(boxes), torch.tensor(anchors)).numpy()
    decoded = coder.decode_single(torch.tensor(deltas), torch.tensor(anchors)).numpy()
    return {
        "box_anchors": anchors,
        "box_boxes": boxes,
        "box_deltas": deltas,
        "box_weights": np.array(weights, np.float32),
        "box_encoded": encoded,
        "box_decoded": decoded,
    }


def main() -> None:
    """Write the file next to this script."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(20)
    arrays = roi_align_cases(rng) | nms_cases(rng) | paste_cases(rng) | box_cases(rng)
    path = Path(__file__).with_name("kernels_golden.npz")
    np.savez_compressed(path, allow_pickle=False, **arrays)
    print(f"{path}: {len(arrays)} arrays, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
