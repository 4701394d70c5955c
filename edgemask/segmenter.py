"""The class that users meet: a model pack, ready to segment images."""

from __future__ import annotations

import math
import numbers
import os
from typing import Any

from edgemask.blas import ONE_THREAD
from edgemask.errors import InputError, ModelError
from edgemask.images import as_rgb
from edgemask.instances import Instances
from edgemask.manifest_shapes import shape_problem
from edgemask.modelpack import ModelPack, load_pack
from edgemask.pipeline import Pipeline
from edgemask.runtime import Stage, default_threads

__all__ = ["Segmenter"]


def _within(value: Any, kind: Any, low: float, high: float) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and bool(low <= value <= high)


class Segmenter:
    """Segments images with a model pack.

    Parameters
    ----------
    model : str, path or ModelPack
        A bundled name (``"people"``) or the path to a pack.
    threads : int, optional
        Threads of the runtime; None uses every CPU this process may use.
    score_threshold : float
        Instances below are dropped, in [0, 1].
    max_detections : int
        At most this many instances per image, 1 or more.
    short_side : int, optional
        Shorter side of the network's input in pixels; None takes the pack's. Larger finds
        smaller objects and takes longer.
    max_proposals : int, optional
        At most this many regions of the image are looked at closely, 1 or more; None, and whatever
        is larger, is the pack's ``post_nms``. Fewer are quicker and miss people in a crowd.

    Attributes
    ----------
    pack : ModelPack
    timings : dict of str to float
        Milliseconds per stage of the last frame; ``total`` is the sum.

    Raises
    ------
    ModelError
        The pack is missing, damaged, or does not run here.
    RuntimeUnavailable
        No TFLite runtime works here.
    InputError
        A parameter is out of range.

    Examples
    --------
    >>> from edgemask import Segmenter
    >>> segmenter = Segmenter(score_threshold=0.6)
    >>> instances = segmenter("photo.jpg")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | ModelPack = "people",
        *,
        threads: int | None = None,
        score_threshold: float = 0.5,
        max_detections: int = 20,
        short_side: int | None = None,
        max_proposals: int | None = None,
    ) -> None:
        if not _within(score_threshold, numbers.Real, 0, 1):
            raise InputError(f"score_threshold is {score_threshold!r}; give a number from 0 to 1")
        if not _within(max_detections, numbers.Integral, 1, math.inf):
            raise InputError(
                f"max_detections is {max_detections!r}; give a whole number, 1 or more"
            )
        if max_proposals is not None and not _within(max_proposals, numbers.Integral, 1, math.inf):
            raise InputError(f"max_proposals is {max_proposals!r}; give a whole number, 1 or more")
        self.pack = model if isinstance(model, ModelPack) else load_pack(model)
        stride = self.pack.input["stride"]
        if short_side is not None and not _within(short_side, numbers.Integral, stride, 4096):
            raise InputError(
                f"short_side is {short_side!r}; give a whole number from {stride} to 4096"
            )
        problem = shape_problem(self.pack.manifest)
        if problem:
            raise ModelError(f"{self.pack.path}: model.json: {problem}; rebuild the pack")
        self.threads = default_threads() if threads is None else threads
        self.score_threshold = float(score_threshold)
        self.max_detections = int(max_detections)
        self.short_side = None if short_side is None else int(short_side)
        self.max_proposals = None if max_proposals is None else int(max_proposals)
        self.stages = {
            name: Stage(content, self.pack.stage_spec(name), self.threads, name=name)
            for name, content in self.pack.stages.items()
        }
        self._pipeline = Pipeline(self.pack.manifest, self.stages, threads=self.threads)

    def __call__(self, image: Any) -> Instances:
        """Segment one image.

        Parameters
        ----------
        image : ndarray of uint8, shape (H, W, 3), RGB; or PIL.Image; or path

        Returns
        -------
        Instances
            In pixels of that image, best first.

        Raises
        ------
        InputError
            An array of another dtype or shape.
        SourceError
            A path that cannot be read as an image.
        """
        rgb = as_rgb(image)
        with ONE_THREAD:
            return self._pipeline(
                rgb,
                self.score_threshold,
                self.max_detections,
                self.short_side,
                self.max_proposals,
            )

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds per stage of the last frame; empty before the first."""
        return self._pipeline.timings
