"""Narrower inverted residuals that compute nearly the same: channels go, the others make up.

Between the depthwise convolution of a block of :mod:`..arch.maskrcnn2go` and its projection there
is no ReLU. The block's output is therefore linear in the depthwise channels, and the best
projection from some of them is a least-squares fit, known from their covariance. Which channels to
take away is decided backwards, eight at a time, each time those whose loss the rest can make up for
best (the optimal brain surgeon of Hassibi & Stork 1993, on channels instead of weights).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from ..arch.keras_stages import float_pipeline
from ..arch.macs import PARTS, channel_costs, fixed_costs, part_blocks
from ..arch.model import MaskRCNN
from ..config import ModelConfig
from ..export.quantize import Recorder, image_samples
from .prune import STEP, PruneError

LEAST = 16  # channels that stay in any block
RIDGE = 1e-3  # of the mean variance: keeps weights of nearly dependent channels small
CELLS = 4096  # that one image adds at most to the statistics of a block
STAGES = {"trunk": "backbone", "rpn": "backbone", "box_head": "box_head", "mask_head": "mask_head"}

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """What a block's depthwise convolution gives.

    Attributes
    ----------
    mean : (C,)
    covariance : (C, C)
    power : float
        Variance of the block's output, the skipped input included, summed over its channels.
    """

    mean: Doubles
    covariance: Doubles
    power: float


@dataclass(frozen=True)
class Removal:
    """A block's channels in the order in which they go, and what that costs.

    Attributes
    ----------
    order : (C,)
        The first goes first.
    errors : (C // 8 + 1,)
        Squared error of the block's output after 0, 8, 16 … removals, relative to its variance.
    """

    order: NDArray[np.int64]
    errors: Doubles


class _Sums:
    """Accumulates first and second moments of rows."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.first = np.zeros(channels)
        self.second = np.zeros((channels, channels))

    def add(self, rows: NDArray[np.float32]) -> None:
        self.count += len(rows)
        self.first += rows.sum(0, dtype=np.float64)
        self.second += (rows.T @ rows).astype(np.float64)

    def mean(self) -> Doubles:
        return self.first / self.count

    def covariance(self) -> Doubles:
        return self.second / self.count - np.outer(self.mean(), self.mean())


def block_moments(
    model: keras.Model,
    blocks: Iterable[str],
    inputs: Iterable[NDArray[np.float32]],
    seed: int = 0,
    layer: str = "depthwise",
) -> dict[str, Moments]:
    """Measure blocks of a stage.

    Parameters
    ----------
    model : keras.Model
    blocks : names such as ``rpn_block_1``
    inputs : batches of the stage's input
    seed : int
        Of the cells that are looked at.
    layer : str
        Which layer of a block gives what its projection reads.

    Raises
    ------
    PruneError
        There is no input.
    """
    random = np.random.default_rng(seed)
    outputs = {}
    names = {layer.name for layer in model.layers}
    for block in blocks:
        end = f"{block}_add" if f"{block}_add" in names else f"{block}_project"
        outputs[block] = model.get_layer(f"{block}_{layer}").output
        outputs[f"{block}/end"] = model.get_layer(end).output
    probe = keras.Model(model.input, outputs)
    sums = {name: _Sums(tensor.shape[-1]) for name, tensor in outputs.items()}
    empty = True
    for batch in inputs:
        empty = False
        for name, value in probe(batch, training=False).items():
            rows = np.asarray(value).reshape(-1, value.shape[-1])
            if len(rows) > CELLS:
                rows = rows[random.choice(len(rows), CELLS, replace=False)]
            sums[name].add(rows)
    if empty:
        raise PruneError("nothing to measure the channels on: give images that show the classes")
    return {
        block: Moments(
            sums[block].mean(),
            sums[block].covariance(),
            float(np.trace(sums[f"{block}/end"].covariance())),
        )
        for block in blocks
    }


def network_moments(
    model: MaskRCNN,
    images: Iterable[NDArray[np.float32]],
    regions: Mapping[str, Iterable[NDArray[np.float32]]],
) -> dict[str, Moments]:
    """Measure all blocks.

    Parameters
    ----------
    model : MaskRCNN
    images : batches of the first stage's input
    regions : dict of ``box_head`` and ``mask_head`` to batches of their inputs
    """
    inputs = {"backbone": images, **regions}
    names: dict[str, list[str]] = {stage: [] for stage in inputs}
    for part, (prefix, blocks) in part_blocks(model.config).items():
        names[STAGES[part]] += [f"{prefix}_{i}" for i in range(len(blocks))]
    moments: dict[str, Moments] = {}
    for stage, blocks in names.items():
        moments |= block_moments(model.stages[stage], blocks, inputs[stage])
    return moments


def measure_network(
    model: MaskRCNN, classes: list[dict[str, Any]], images: Iterable[NDArray[np.uint8]]
) -> dict[str, Moments]:
    """Measure all blocks on photographs, the heads on the regions that the network finds there."""
    seen: dict[str, list[NDArray[np.float32]]] = {"box_head": [], "mask_head": []}
    pipeline = float_pipeline(model, classes)
    for name, regions in seen.items():
        pipeline.stages = {**pipeline.stages, name: Recorder(model.stages[name], name, regions)}
    for rgb in images:
        pipeline(rgb, score_threshold=0.05, max_detections=20)
    return network_moments(model, image_samples(images, pipeline.manifest), seen)


def removal(moments: Moments, kernel: NDArray[Any], step: int = STEP) -> Removal:
    """Order a block's channels from the least needed on.

    Parameters
    ----------
    moments : Moments
    kernel : (C, out)
        The projection.
    step : int
        Channels that go together.
    """
    weights = np.asarray(kernel, np.float64).copy()
    inverse = np.linalg.inv(_stiffened(moments.covariance))
    alive = np.ones(len(weights), bool)
    order: list[int] = []
    errors = [0.0]
    while alive.sum() >= step:
        # Rows and columns of those that went are 0 by now.
        diagonal = np.where(alive, np.diag(inverse), 1.0)
        scores = np.where(alive, np.square(weights).sum(1) / diagonal, np.inf)
        gone = np.argsort(scores, kind="stable")[:step]
        block, columns = inverse[np.ix_(gone, gone)], inverse[:, gone]
        # What the rest gives in place of those that go, and the error that remains.
        solved = np.linalg.solve(block, weights[gone])
        errors.append(errors[-1] + float((weights[gone] * solved).sum()))
        weights -= columns @ solved
        inverse -= columns @ np.linalg.solve(block, columns.T)
        alive[gone] = False
        order += gone.tolist()
    order += np.flatnonzero(alive).tolist()
    return Removal(np.array(order, np.int64), np.array(errors) / max(moments.power, 1e-12))


def _stiffened(covariance: Doubles) -> Doubles:
    """Add a ridge, so that dependent channels do not make huge weights of opposite signs."""
    ridge = RIDGE * float(np.trace(covariance)) / len(covariance) + 1e-12
    return covariance + ridge * np.eye(len(covariance))


def plan(
    removals: Mapping[str, Removal], costs: Mapping[str, float], budget: float
) -> dict[str, int]:
    """Choose how many channels of each block stay, for a budget of multiply-accumulates.

    Greedy: the eight channels go next whose removal adds least error per multiply-accumulate.

    Raises
    ------
    PruneError
        The budget is below what 16 channels in every block cost.
    """
    kept = {name: len(removals[name].order) for name in costs}
    steps = dict.fromkeys(kept, 0)
    total = sum(kept[name] * costs[name] for name in kept)
    while total > budget:
        prices = {
            name: (removals[name].errors[steps[name] + 1] - removals[name].errors[steps[name]])
            / (STEP * costs[name])
            for name, count in kept.items()
            if count - STEP >= LEAST
        }
        if not prices:
            raise PruneError(
                f"a budget of {budget / 1e6:.1f} MMAC for the blocks cannot be met: {LEAST} "
                f"channels in each need {total / 1e6:.1f}"
            )
        name = min(prices, key=prices.__getitem__)
        kept[name] -= STEP
        steps[name] += 1
        total -= STEP * costs[name]
    return kept


def plan_network(
    model: MaskRCNN,
    moments: Mapping[str, Moments],
    budgets: Mapping[str, float],
    height: int,
    width: int,
) -> dict[str, list[int]]:
    """Expansions for each part of the network that has a budget.

    Parameters
    ----------
    model : MaskRCNN
    moments : from :func:`network_moments`
    budgets : dict of part (``trunk``, ``rpn``, ``box_head``, ``mask_head``) to float
        Multiply-accumulates of the whole part; a head's for one region.
    height, width : int
        Of the network's input.

    Returns
    -------
    dict of part to list of int; parts without a budget keep what they have.
    """
    costs = channel_costs(model.config, height, width)
    fixed = fixed_costs(model.config, height, width)
    expansions = {}
    for part in PARTS:
        if part in budgets:
            removals = {n: removal(moments[n], _projection(model, part, n)) for n in costs[part]}
            kept = plan(removals, costs[part], budgets[part] - fixed[part])
            expansions[part] = list(kept.values())
        else:
            expansions[part] = [blocks[0] for blocks in part_blocks(model.config)[part][1]]
    return expansions


def set_expansions(config: ModelConfig, expansions: Mapping[str, list[int]]) -> None:
    """Write planned expansions into a configuration."""
    sections = (config.backbone, config.rpn, config.box_head, config.mask_head)
    for section, part in zip(sections, PARTS, strict=True):
        section.expansions = list(expansions[part])


def narrow_blocks(wide: MaskRCNN, target: MaskRCNN, moments: Mapping[str, Moments]) -> None:
    """Fill `target` from a wider network of the same kind, with refitted projections.

    Raises
    ------
    PruneError
        `target` has more channels in some block, or another shape in another layer.
    """
    blocks = {
        f"{prefix}_{i}": part
        for part, (prefix, shapes) in part_blocks(wide.config).items()
        for i in range(len(shapes))
    }
    for name, part in blocks.items():
        stages = wide.stages[STAGES[part]], target.stages[STAGES[part]]
        _narrow_block(name, *stages, moments[name])
    source = wide.named_weights()
    for name, weight in target.named_weights().items():
        layer = name.split("/")[1]
        if layer.rpartition("_")[0] in blocks:
            continue
        value = np.asarray(source[name])
        if value.shape != tuple(weight.shape):
            raise PruneError(f"{layer}: {value.shape} does not fit {tuple(weight.shape)}")
        weight.assign(value)


def kept_channels(moments: Moments, kernel: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Positions of the ``count`` channels that a projection (C, out) needs most, ascending."""
    if count == len(kernel):
        return np.arange(count)
    return np.sort(removal(moments, kernel).order[len(kernel) - count :])


def refitted(
    moments: Moments, kernel: Doubles, bias: Doubles, kept: NDArray[np.int64]
) -> tuple[Doubles, Doubles]:
    """Kernel (K, out) and bias (out,) that give what (C, out) gave, from the kept channels alone.

    Least squares over what was measured.
    """
    if len(kept) == len(kernel):
        return kernel, bias
    stiff = _stiffened(moments.covariance)
    fitted = np.linalg.solve(stiff[np.ix_(kept, kept)], stiff[kept] @ kernel)
    return fitted, bias + moments.mean @ kernel - moments.mean[kept] @ fitted


def _narrow_block(name: str, wide: keras.Model, target: keras.Model, moments: Moments) -> None:
    old, new = (
        [m.get_layer(f"{name}_{part}") for part in ("expand", "depthwise", "project")]
        for m in (wide, target)
    )
    kernel = np.asarray(old[2].kernel)[0, 0].astype(np.float64)
    bias = np.asarray(old[2].bias).astype(np.float64)
    count = new[0].filters
    if count > len(kernel):
        raise PruneError(f"{name} has {count} channels, the wide network {len(kernel)}")
    kept = kept_channels(moments, kernel, count)
    kernel, bias = refitted(moments, kernel, bias, kept)
    new[0].kernel.assign(np.asarray(old[0].kernel)[..., kept])
    new[0].bias.assign(np.asarray(old[0].bias)[kept])
    new[1].kernel.assign(np.asarray(old[1].kernel)[:, :, kept])
    new[2].kernel.assign(kernel[None, None])
    new[2].bias.assign(bias)


def _projection(model: MaskRCNN, part: str, block: str) -> NDArray[np.float32]:
    return np.asarray(model.stages[STAGES[part]].get_layer(f"{block}_project").kernel)[0, 0]
