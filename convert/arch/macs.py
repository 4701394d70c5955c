"""What the network of :mod:`.maskrcnn2go` costs in multiply-accumulates, part by part."""

from __future__ import annotations

from ..config import ModelConfig
from .heads import box_outputs
from .layout import anchors_per_cell
from .maskrcnn2go import BOX, CHANNELS, MASK, RPN, STEM, TRUNK, UP_CHANNELS, WIDTH

PARTS = ("trunk", "rpn", "box_head", "mask_head")


def part_blocks(config: ModelConfig) -> dict[str, tuple[str, list[tuple[int, int, int]]]]:
    """By part: the prefix of its blocks' names, and (expanded, channels, stride) of each."""
    parts = {
        "trunk": ("block", TRUNK, config.backbone.expansions),
        "rpn": ("rpn_block", RPN, config.rpn.expansions),
        "box_head": ("box_block", BOX, config.box_head.expansions),
        "mask_head": ("mask_block", MASK, config.mask_head.expansions),
    }
    return {
        part: (
            prefix,
            [(expansions[i] if expansions else e, c, s) for i, (e, c, s) in enumerate(blocks)],
        )
        for part, (prefix, blocks, expansions) in parts.items()
    }


def channel_costs(config: ModelConfig, height: int, width: int) -> dict[str, dict[str, int]]:
    """Multiply-accumulates of one expanded channel of each block, by part and block's name.

    Parameters
    ----------
    config : ModelConfig
    height, width : int
        Of the network's input. The heads' costs are those of one region.
    """
    sides = {
        "trunk": (height // 2, width // 2),
        "rpn": (height // 16, width // 16),
        "box_head": (config.box_head.output_size,) * 2,
        "mask_head": (config.mask_head.output_size,) * 2,
    }
    inputs = {"trunk": STEM, "rpn": CHANNELS, "box_head": CHANNELS, "mask_head": CHANNELS}
    costs: dict[str, dict[str, int]] = {}
    for part, (prefix, blocks) in part_blocks(config).items():
        (h, w), channels = sides[part], inputs[part]
        costs[part] = {}
        for index, (_, out, stride) in enumerate(blocks):
            before = h * w
            h, w = h // stride, w // stride
            costs[part][f"{prefix}_{index}"] = channels * before + (9 + out) * h * w
            channels = out
    return costs


def fixed_costs(config: ModelConfig, height: int, width: int) -> dict[str, int]:
    """Multiply-accumulates of what is not inside a block, by part."""
    box, mask = config.box_head.output_size // 2, config.mask_head.output_size
    masks = 1 if config.mask_head.class_agnostic else len(config.classes)
    return {
        "trunk": height // 2 * (width // 2) * 27 * STEM,
        "rpn": height // 16 * (width // 16) * CHANNELS * 5 * anchors_per_cell(config),
        "box_head": WIDTH * (box * box * WIDTH + sum(box_outputs(config))),
        "mask_head": mask * mask * 4 * UP_CHANNELS * (WIDTH + masks),
    }


def network_macs(config: ModelConfig, height: int, width: int) -> dict[str, int]:
    """Multiply-accumulates of trunk and RPN on an input, and of each head on one region."""
    costs = channel_costs(config, height, width)
    fixed = fixed_costs(config, height, width)
    return {
        part: fixed[part] + sum(blocks[i][0] * cost for i, cost in enumerate(costs[part].values()))
        for part, (_, blocks) in part_blocks(config).items()
    }
