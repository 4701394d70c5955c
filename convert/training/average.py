"""One network out of several trained ones of the same shape: the mean of their weights.

Runs that began from the same weights end in the same valley of the loss, and its middle is often
better than any of its slopes, at no cost on the device (model soups, Wortsman et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..arch.model import MaskRCNN
from ..checkpoint import CheckpointError, load_model
from ..config import ModelConfig

__all__ = ["average"]


def average(
    paths: Sequence[str | Path], shares: Sequence[float] | None = None
) -> tuple[MaskRCNN, dict[str, Any]]:
    """Return the weighted mean of checkpoints, with the header of the last one.

    Parameters
    ----------
    paths : sequence of path
        Two checkpoints or more of one network; of training checkpoints the averaged weights count.
    shares : sequence of float, optional
        One positive number for each; they need not sum to 1. Equal shares by default.

    Raises
    ------
    CheckpointError
        A file is unreadable, or another network, or knows other classes.
    ValueError
        Fewer than two files, or not one positive share for each.
    """
    if len(paths) < 2:
        raise ValueError(f"{len(paths)} checkpoint to average: give two or more")
    weights = np.array([1.0] * len(paths) if shares is None else shares, np.float64)
    if weights.shape != (len(paths),) or not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(
            f"shares {weights.tolist()} for {len(paths)} checkpoints: give one above 0 for each"
        )
    weights /= weights.sum()
    kept = []
    total: dict[str, np.ndarray] = {}
    model, header = None, {}
    for path, share in zip(paths, weights, strict=True):
        other, its_header = load_model(path)
        if model is not None and (
            _network(other) != _network(model) or its_header.get("classes") != header.get("classes")
        ):
            raise CheckpointError(f"{path} is another network than {paths[0]}: shapes, settings "
                                  "and classes must be the same")  # fmt: skip
        model, header = other, its_header
        kept.append(header.get("neck_channels"))
        for name, weight in model.named_weights().items():
            value = np.asarray(weight).astype(np.float64) * share
            total[name] = total[name] + value if name in total else value
    for name, weight in model.named_weights().items():
        weight.assign(total[name].astype(np.float32))
    known = ["config", "classes", "data"]
    if all(channels == kept[0] for channels in kept):
        known.append("neck_channels")  # of one parent
    header = {key: value for key, value in header.items() if key in known}
    parts = [
        {"file": Path(path).name, "share": round(float(share), 4)}
        for path, share in zip(paths, weights, strict=True)
    ]
    return model, {**header, "step": 0, "average": parts}


def _network(model: MaskRCNN) -> ModelConfig:
    """Its configuration without what changes no weight: names, and how it is trained or run."""
    config = model.config
    return replace(
        config, name="", resize="", backbone=replace(config.backbone, frozen_blocks=0),
        rpn=replace(config.rpn, score_threshold=0.0),
        box_head=replace(config.box_head, nms_threshold=0.0),
        mask_head=replace(config.mask_head, soft_nms_threshold=0.0),
    )  # fmt: skip
