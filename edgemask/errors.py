"""The exceptions that edgemask raises on purpose.

Every one derives from :class:`EdgeMaskError` and also from the built-in exception a caller would
expect, so ``except OSError`` around a batch of files keeps working. The rule for messages is one
line that says what was found and then what to do about it.
"""

from __future__ import annotations

__all__ = [
    "CameraBusy",
    "CameraMissing",
    "EdgeMaskError",
    "InputError",
    "ModelError",
    "OutputError",
    "RuntimeUnavailable",
    "SourceError",
    "SourceTimeout",
]


class EdgeMaskError(Exception):
    """Base class of every error that edgemask raises on purpose."""

    def __str__(self) -> str:
        # OSError formats its arguments in its own way; the message given is the message shown.
        return " ".join(str(argument) for argument in self.args)


class ModelError(EdgeMaskError, ValueError):
    """A model pack or one of its stages cannot be used: damaged, unsafe, too new, unknown op."""


class RuntimeUnavailable(EdgeMaskError, ImportError):
    """No TFLite runtime, or another optional package, works in this Python."""


class InputError(EdgeMaskError, ValueError):
    """An array of the wrong dtype or shape, or a parameter outside its range."""


class SourceError(EdgeMaskError, OSError):
    """An image, folder, video or annotation file cannot be read."""


class CameraBusy(SourceError):
    """The camera exists but another process holds it."""


class CameraMissing(SourceError):
    """No camera was found, or the one in use has been unplugged."""


class SourceTimeout(SourceError):
    """A camera or stream gave no frame in time."""


class OutputError(EdgeMaskError, OSError):
    """A result cannot be written: read-only folder, full disk, a file where a folder should be."""
