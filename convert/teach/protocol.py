"""What a teacher is: the protocol that the built-in ones follow and that a user's own can.

A teacher is any object with the attributes and methods of :class:`Teacher`. A module of one's own
needs a function that makes one::

    # mymodule.py
    import numpy as np
    from edgemask_convert.teach.protocol import SoftInstances

    class Threshold:
        name = "threshold"
        categories = {1: "cell"}

        def label(self, image):
            bright = image.mean(axis=2) > 128
            rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
            if not len(rows):
                return SoftInstances.empty()
            box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            return SoftInstances([box], [0.9], [1], np.ones((1, 28, 28), np.float32))

        def segment(self, image, boxes, class_ids):
            return None

    def make():
        return Threshold()

and is used as ``edgemask-convert teach --teacher mymodule:make``. Text after a second colon is
passed to the function as its one argument: ``--teacher mymodule:make:weights.onnx``.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgemask.boxes import as_boxes

__all__ = ["SoftInstances", "Teacher", "TeacherError", "check_masks", "import_teacher"]

Floats = NDArray[np.float32]


class TeacherError(ValueError):
    """A teacher cannot be made, or returns something that is not what the protocol says."""


class SoftInstances:
    """Instances of one image with soft masks.

    Parameters
    ----------
    boxes : array_like, shape (N, 4)
        x0 y0 x1 y1 in pixels of the image, half-open.
    scores : array_like of float, shape (N,)
        In [0, 1].
    class_ids : array_like of int, shape (N,)
        Keys of the teacher's `categories`.
    masks : array_like of float, shape (N, S, S)
        Probability that each of S x S cells, which divide the box evenly, is the object.

    Raises
    ------
    TeacherError
        If the shapes do not fit together, a value is NaN, or a score or a mask leaves [0, 1].
    """

    def __init__(
        self, boxes: ArrayLike, scores: ArrayLike, class_ids: ArrayLike, masks: ArrayLike
    ) -> None:
        self.boxes: Floats = as_boxes(boxes)
        count = len(self.boxes)
        self.scores: Floats = np.asarray(scores, np.float32)
        self.class_ids: NDArray[np.int32] = np.asarray(class_ids, np.int32)
        self.masks: Floats = check_masks(masks, count)
        if self.scores.shape != (count,) or self.class_ids.shape != (count,):
            raise TeacherError(
                f"{count} boxes with scores of shape {self.scores.shape} and class ids of shape "
                f"{self.class_ids.shape}; give one of each per box"
            )
        if not np.isfinite(self.boxes).all():
            raise TeacherError("a box has a coordinate that is NaN or infinite")
        if count and not (self.scores.min() >= 0 and self.scores.max() <= 1):
            raise TeacherError("a score is not between 0 and 1")

    @classmethod
    def empty(cls) -> SoftInstances:
        """Return the instances of an image without any."""
        return cls([], [], [], [])

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> SoftInstances:
        """Return some of the instances, chosen by an index array, a mask or a slice."""
        return SoftInstances(
            self.boxes[index], self.scores[index], self.class_ids[index], self.masks[index]
        )


class Teacher(Protocol):
    """Labels images, and segments objects whose boxes are known.

    Attributes
    ----------
    name : str
        Goes into the training record.
    categories : mapping of int to str
        The classes it knows: id → name. They are matched by name with those of the dataset.
    """

    name: str
    categories: Mapping[int, str]

    def label(self, image: NDArray[np.uint8]) -> SoftInstances:
        """Find the instances of all its categories in an RGB image (H, W, 3).

        Duplicates are removed already; unsure instances (from a score of 0.05) are included.
        """
        ...

    def segment(
        self, image: NDArray[np.uint8], boxes: Floats, class_ids: NDArray[np.int32]
    ) -> Floats | None:
        """Segment the object in each box.

        Parameters
        ----------
        image : ndarray of uint8, shape (H, W, 3), RGB
        boxes : ndarray of float32, shape (N, 4)
            In pixels of the image, N ≥ 1.
        class_ids : ndarray of int32, shape (N,)
            Keys of `categories`.

        Returns
        -------
        ndarray of float32, shape (N, S, S), or None
            Soft masks relative to the boxes. None if the teacher cannot be prompted: then the
            masks of what :meth:`label` finds in the same places are taken.
        """
        ...


def check_masks(masks: ArrayLike, count: int) -> Floats:
    """Return soft masks as float32 (N, S, S).

    Raises
    ------
    TeacherError
        Another shape or number, NaN, or values outside [0, 1].
    """
    array = np.asarray(masks, np.float32)
    if not count and not array.size:
        return array.reshape(0, *(array.shape[1:] if array.ndim == 3 else (1, 1)))
    if array.ndim != 3 or array.shape[1] != array.shape[2] or len(array) != count:
        raise TeacherError(f"masks of shape {array.shape} for {count} boxes; give (N, S, S)")
    if not (array.min() >= 0 and array.max() <= 1):
        raise TeacherError("a mask is not between 0 and 1; give probabilities, not logits")
    return array


def import_teacher(spec: str) -> Teacher:
    """Make a teacher from ``module:function`` or ``module:function:argument``.

    The module is looked for in the current folder too.

    Raises
    ------
    TeacherError
        The module or function is not there, or what it returns is not a teacher.
    """
    module_name, _, rest = spec.partition(":")
    function_name, has_argument, argument = rest.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except ImportError as error:
        raise TeacherError(f"teacher {spec!r}: cannot import {module_name}: {error}") from error
    except AttributeError as error:
        raise TeacherError(f"teacher {spec!r}: {error}") from error
    try:
        teacher = factory(argument) if has_argument else factory()
    except TypeError as error:
        raise TeacherError(f"teacher {spec!r} cannot be made: {error}") from error
    missing = [n for n in ("name", "categories", "label", "segment") if not hasattr(teacher, n)]
    if missing:
        raise TeacherError(
            f"teacher {spec!r} has no {', '.join(missing)}: see edgemask_convert.teach.protocol"
        )
    return teacher
