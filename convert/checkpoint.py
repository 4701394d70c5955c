"""Checkpoints: plain npz files with named arrays and a JSON header, written atomically."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .arch.model import MaskRCNN, build_model
from .config import from_dict


class CheckpointError(ValueError):
    """A checkpoint is unreadable or belongs to another network."""


def save_arrays(path: str | Path, arrays: dict[str, np.ndarray], header: dict[str, Any]) -> None:
    """Write ``arrays`` and ``header`` to ``path``, aside first, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    try:
        with open(aside, "wb") as file:
            np.savez_compressed(file, header=text, **arrays)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def load_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what :func:`save_arrays` wrote.

    Raises
    ------
    CheckpointError
        Missing file, not an npz, or no header.
    """
    try:
        with np.load(path) as data:
            arrays = {key: data[key] for key in data.files}
        header = json.loads(arrays.pop("header").tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(f"{path} is not an edgemask checkpoint: {error}") from error
    return arrays, header


def export_model(path: str | Path, model: MaskRCNN, header: dict[str, Any]) -> None:
    """Save a finished network as float16 (the shipped float parent, under 10 MB)."""
    arrays = {k: np.asarray(v).astype(np.float16) for k, v in model.named_weights().items()}
    save_arrays(path, arrays, header)


def assign_weights(model: MaskRCNN, arrays: dict[str, np.ndarray], path: str | Path) -> None:
    """Copy named arrays into ``model``; every weight must be there with its shape."""
    for name, weight in model.named_weights().items():
        if name not in arrays:
            raise CheckpointError(f"{path} has no weight {name}")
        if arrays[name].shape != tuple(weight.shape):
            raise CheckpointError(
                f"{path}: {name} has shape {arrays[name].shape}, the network {tuple(weight.shape)}"
            )
        weight.assign(arrays[name].astype(np.float32))


def load_model(path: str | Path) -> tuple[MaskRCNN, dict[str, Any]]:
    """Rebuild a network from an exported model or a training checkpoint.

    A training checkpoint gives its averaged (EMA) weights.

    Returns
    -------
    model, header
    """
    arrays, header = load_arrays(path)
    if "config" not in header:
        raise CheckpointError(f"{path} has no model configuration")
    model = build_model(from_dict(header["config"]).model)
    averaged = {k.removeprefix("ema/"): v for k, v in arrays.items() if k.startswith("ema/")}
    assign_weights(model, averaged or arrays, path)
    return model, header
