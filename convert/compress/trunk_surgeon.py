"""Narrower blocks of a MobileNetV2 trunk that compute nearly the same.

A block's output is linear in what its depthwise convolution gives after the ReLU6. So what goes can
be made up for by the projection, as in :mod:`.surgeon`, whose rules choose the channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..arch.backbone import first_kept
from ..arch.model import MaskRCNN
from ..config import ModelConfig
from .prune import PruneError, expansion_costs
from .surgeon import Moments, block_moments, kept_channels, plan, refitted, removal

UNUSED = 1  # entry of a block that a fused one has taken the place of


def trunk_blocks(config: ModelConfig) -> list[str]:
    """Blocks whose expansion can be narrowed: all but the first, and not the fused ones."""
    first = max(first_kept(config.backbone.fused), 1)
    return [f"block_{i}" for i in range(first, config.backbone.last_block + 1)]


def measure_trunk(model: MaskRCNN, images: Iterable[NDArray[np.float32]]) -> dict[str, Moments]:
    """What the depthwise convolutions of a trunk give on batches of normalised images."""
    return block_moments(
        model.first_stage, trunk_blocks(model.config), images, layer="depthwise_relu"
    )


def _projection(model: MaskRCNN, block: str) -> NDArray[np.float64]:
    kernel = model.first_stage.get_layer(f"{block}_project").kernel
    return np.asarray(kernel)[0, 0].astype(np.float64)


def choose_channels(
    wide: MaskRCNN, target: MaskRCNN, moments: Mapping[str, Moments]
) -> dict[str, NDArray[np.int64]]:
    """Positions of the expanded channels that stay, for each block that can be narrowed."""
    widths = {
        name: target.first_stage.get_layer(f"{name}_project").kernel.shape[2]
        for name in trunk_blocks(target.config)
    }
    for name, width in widths.items():
        have = len(_projection(wide, name))
        if width > have:
            raise PruneError(f"{name} has {width} channels, the wide network {have}")
    return {
        name: kept_channels(moments[name], _projection(wide, name), width)
        for name, width in widths.items()
    }


def plan_trunk(
    model: MaskRCNN,
    moments: Mapping[str, Moments],
    config: ModelConfig,
    size: tuple[int, int],
    budget: float,
) -> list[int]:
    """Expansions for ``config.backbone``, one for each of blocks 1..last_block.

    Parameters
    ----------
    model : MaskRCNN
        The wide network.
    moments : dict
        From :func:`measure_trunk` of it.
    config : ModelConfig
        Of the narrow network; its number of blocks and pyramid channels count.
    size : (int, int)
        Height and width of the network's input.
    budget : float
        Multiply-accumulates of all blocks that can be narrowed.
    """
    costs = expansion_costs(config, *size)
    names = trunk_blocks(config)
    removals = {name: removal(moments[name], _projection(model, name)) for name in names}
    kept = plan(removals, {name: costs[name] for name in names}, budget)
    blocks = [f"block_{i}" for i in range(1, config.backbone.last_block + 1)]
    return [kept.get(name, UNUSED) for name in blocks]


def refit_trunk(
    wide: MaskRCNN,
    target: MaskRCNN,
    moments: Mapping[str, Moments],
    chosen: Mapping[str, NDArray[np.int64]],
) -> None:
    """Let the projections of ``target`` make up for the channels that are gone.

    Parameters
    ----------
    wide, target : MaskRCNN
    moments : dict
        From :func:`measure_trunk` of ``wide``.
    chosen : dict
        Block to the positions of the channels that stayed, as `prune.narrow` returns them.
    """
    for name in trunk_blocks(target.config):
        bias = np.asarray(wide.first_stage.get_layer(f"{name}_project").bias, np.float64)
        kernel, bias = refitted(moments[name], _projection(wide, name), bias, chosen[name])
        layer = target.first_stage.get_layer(f"{name}_project")
        layer.kernel.assign(kernel[None, None])
        layer.bias.assign(bias)
