"""Instance segmentation on small ARM boards: an int8 Mask R-CNN, NumPy, and one TFLite runtime.

>>> from edgemask import Segmenter
>>> instances = Segmenter()("photo.jpg")  # doctest: +SKIP

Names are loaded when they are first used, so ``import edgemask`` itself costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgemask import errors
    from edgemask.errors import (
        CameraBusy,
        CameraMissing,
        EdgeMaskError,
        InputError,
        ModelError,
        OutputError,
        RuntimeUnavailable,
        SourceError,
        SourceTimeout,
    )
    from edgemask.images import load_image
    from edgemask.instances import Instances
    from edgemask.masks import CropMasks
    from edgemask.overlay import draw
    from edgemask.segmenter import Segmenter
    from edgemask.sources import open_source
    from edgemask.tracking import Tracker

__version__ = "0.1.0"
_ERRORS = (
    "CameraBusy",
    "CameraMissing",
    "EdgeMaskError",
    "InputError",
    "ModelError",
    "OutputError",
    "RuntimeUnavailable",
    "SourceError",
    "SourceTimeout",
)
__all__ = [
    "CameraBusy",
    "CameraMissing",
    "CropMasks",
    "EdgeMaskError",
    "InputError",
    "Instances",
    "ModelError",
    "OutputError",
    "RuntimeUnavailable",
    "Segmenter",
    "SourceError",
    "SourceTimeout",
    "Tracker",
    "__version__",
    "draw",
    "errors",
    "load_image",
    "open_source",
]

_HOME = {
    "CropMasks": "edgemask.masks",
    "Instances": "edgemask.instances",
    "Segmenter": "edgemask.segmenter",
    "Tracker": "edgemask.tracking",
    "draw": "edgemask.overlay",
    "load_image": "edgemask.images",
    "open_source": "edgemask.sources",
    **dict.fromkeys(_ERRORS, "edgemask.errors"),
}


def __getattr__(name: str) -> object:
    if name == "errors":
        return importlib.import_module("edgemask.errors")
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'edgemask' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
