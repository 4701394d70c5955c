"""Checkpoints: plain npz files with named arrays and a JSON header, written atomically."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .arch.model import MaskRCNN, build_model
from .config import Config, from_dict, with_overrides

# What may differ when a run goes on: none of it changes what is learnt.
FREE_KEYS = frozenset(
    f"train.{key}" for key in ("workers", "save_minutes", "eval_epochs", "eval_images")
)


class CheckpointError(ValueError):
    """A checkpoint is unreadable or belongs to another network."""


_UNREADABLE = (
    OSError, ValueError, TypeError, AttributeError, KeyError, EOFError, zipfile.BadZipFile,
    zlib.error, RuntimeError,  # zipfile's, of an encryption or a compression that is none
)  # fmt: skip


def _not_one(path: str | Path, error: Exception) -> CheckpointError:
    """What to say of a file that NumPy, or this module, cannot read."""
    reason = getattr(error, "strerror", None) or "it is damaged, or something else"
    with (
        contextlib.suppress(OSError, RuntimeError, zipfile.BadZipFile),
        zipfile.ZipFile(path) as archive,
    ):
        if "model.json" in archive.namelist():
            reason = "it is a model pack"
    return CheckpointError(
        f"{path} is not an edgemask checkpoint ({reason}): give a model.npz or checkpoint.npz"
    )


def save_arrays(path: str | Path, arrays: dict[str, np.ndarray], header: dict[str, Any]) -> None:
    """Write ``arrays`` and ``header`` to ``path``, aside first, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    try:
        with open(aside, "wb") as file:
            np.savez_compressed(file, header=text, **arrays)
            # Or a power cut can leave an empty file in the place of the old one.
            file.flush()
            os.fsync(file.fileno())
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
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is not an edgemask checkpoint: there is no such file; check the path"
        ) from error
    except _UNREADABLE as error:
        raise _not_one(path, error) from error
    return arrays, header


def load_header(path: str | Path) -> dict[str, Any]:
    """Read only the header of what :func:`save_arrays` wrote; raises as :func:`load_arrays`."""
    try:
        with np.load(path) as data:
            return json.loads(data["header"].tobytes())
    except _UNREADABLE as error:
        raise _not_one(path, error) from error


def export_model(path: str | Path, model: MaskRCNN, header: dict[str, Any]) -> None:
    """Save a finished network as float16 (the shipped float parent, under 10 MB)."""
    arrays = {k: np.asarray(v).astype(np.float16) for k, v in model.named_weights().items()}
    save_arrays(path, arrays, header)


def assign_weights(
    model: MaskRCNN, arrays: dict[str, np.ndarray], path: str | Path, optional: Sequence[str] = ()
) -> list[str]:
    """Copy named arrays into ``model``; every weight must be there with its shape.

    Only stages named in ``optional`` may be missing, and only as a whole; layers named there
    (``stage/layer``) may have another shape.

    Returns
    -------
    list of str
        Layers of such stages and such layers, which keep the weights they have.
    """
    lacking = {s for s in optional if not any(name.startswith(f"{s}/") for name in arrays)}
    reshaped = {
        layer
        for name, weight in model.named_weights().items()
        if (layer := name.rpartition("/")[0]) in optional
        and name in arrays
        and arrays[name].shape != tuple(weight.shape)
    }
    fresh: dict[str, None] = {}
    for name, weight in model.named_weights().items():
        stage, layer, _ = name.split("/", 2)
        if stage in lacking or f"{stage}/{layer}" in reshaped:
            fresh[layer] = None
            continue
        if name not in arrays:
            raise CheckpointError(f"{path} has no weight {name}")
        if arrays[name].shape != tuple(weight.shape):
            raise CheckpointError(
                f"{path}: {name} has shape {arrays[name].shape}, the network "
                f"{tuple(weight.shape)}: give the settings of [model] that these weights were "
                "trained with"
            )
        weight.assign(arrays[name].astype(np.float32))
    return list(fresh)


def check_same_run(
    saved: dict[str, Any], config: Config, data: dict[str, Any], path: str | Path
) -> None:
    """Refuse to go on with other data or another configuration than a run began with.

    Parameters
    ----------
    saved : dict
        The checkpoint's header.
    config : Config
        What the command asks for now; `FREE_KEYS` may differ.
    data : dict
        ``sha256`` of the annotations, number of ``images``, and the sha256 of a ``teacher``, of
        a network whose features are a ``hint`` and of the ``first_weights``, now.
    path : path
        The checkpoint, for the message.

    Raises
    ------
    CheckpointError
        Naming what changed, and how to train on with the change.
    """
    if "config" not in saved:
        raise CheckpointError(f"{path} has no model configuration")
    # A checkpoint of an older version lacks newer keys: they had what is the default now.
    before, now = (_flat(from_dict(c).to_dict()) for c in (saved["config"], config.to_dict()))
    changes = [
        f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in {**before, **now}
        if before.get(key) != now.get(key) and key not in FREE_KEYS
    ]
    recorded = saved.get("data", {})
    if recorded.get("sha256", data["sha256"]) != data["sha256"]:
        changes.insert(0, "the annotation file is another one")
    elif recorded.get("images", data["images"]) != data["images"]:
        changes.insert(0, f"images to train on were {recorded['images']}, are {data['images']}")
    if recorded.get("teacher", data.get("teacher")) != data.get("teacher"):
        changes.insert(0, "--distill names another teacher, or none")
    if recorded.get("hint") != data.get("hint"):
        changes.insert(0, "--hint names another network, or none")
    now_first = data.get("first_weights")
    if recorded.get("first_weights", now_first) != now_first:
        changes.insert(0, "--start-from or --init names other weights than it began with")
    if changes:
        raise CheckpointError(
            f"{path} cannot be resumed, because its run changed: {'; '.join(changes)}. Change it "
            f"back, or begin a new run with another --out (--start-from {path} takes the weights)"
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts → ``section.key`` to value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def load_model(path: str | Path, overrides: Sequence[str] = ()) -> tuple[MaskRCNN, dict[str, Any]]:
    """Rebuild a network from an exported model or a training checkpoint.

    A training checkpoint gives its averaged (EMA) weights. `overrides` change its configuration
    (``model.key=value``), where the weights fit it still.

    Returns
    -------
    model, header
    """
    arrays, header = load_arrays(path)
    if "config" not in header:
        raise CheckpointError(f"{path} has no model configuration")
    model = build_model(with_overrides(header["config"], overrides).model)
    averaged = {k.removeprefix("ema/"): v for k, v in arrays.items() if k.startswith("ema/")}
    assign_weights(model, averaged or arrays, path)
    return model, header
