"""What a teacher's weights are, so that results of two teachers are never mixed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from pathlib import Path

__all__ = ["fingerprint"]


def fingerprint(spec: str) -> str:
    """Return the sha256 of the files behind a ``--teacher`` text.

    Of a teacher of one's own they are the source of its module and, if its argument is a path,
    that file or the files in that folder; what else it reads is not known.

    Parameters
    ----------
    spec : str
        As :func:`..teach.registry.make_teacher` takes it, and has taken it.
    """
    kind, _, argument = spec.partition(":")
    if kind == "pack":
        from edgemask.modelpack import load_pack

        # The manifest names the sha256 of every stage, and loading has compared them.
        manifest = json.dumps(dict(load_pack(argument).manifest), sort_keys=True)
        return hashlib.sha256(manifest.encode()).hexdigest()
    if kind == "maskrcnn2go":
        return _of_files([Path(argument) / name for name in ("model.pb", "model_init.pb")])
    if kind == "checkpoint":
        return _of_files([Path(argument)])
    if kind == "torchvision":
        return _of_torchvision(argument)
    path, _, own = argument.partition(":")
    module = sys.modules.get(kind)
    origin = getattr(module, "__file__", None) or getattr(
        importlib.util.find_spec(kind), "origin", None
    )
    given = Path(own) if own else None
    files = [Path(origin)] if origin and os.path.isfile(origin) else []
    if given is not None and given.is_file():
        files.append(given)
    elif given is not None and given.is_dir():
        files += sorted(entry for entry in given.iterdir() if entry.is_file())
    return _of_files(files, start=f"{path}:{own}")


def _of_torchvision(weights: str) -> str:
    if weights and Path(weights).is_file():
        return _of_files([Path(weights)])
    import torchvision
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights as Weights

    # The address of the weights holds the beginning of their hash.
    return _of_files([], start=f"{weights}:{torchvision.__version__}:{Weights.DEFAULT.url}")


def _of_files(paths: list[Path], start: str = "") -> str:
    digest = hashlib.sha256(start.encode())
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
