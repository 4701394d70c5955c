"""The result of segmenting one image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgemask.boxes import Floats, as_boxes
from edgemask.errors import InputError, RuntimeUnavailable
from edgemask.masks import CropMasks

__all__ = ["Instances"]


class Instances:
    """The instances that were found in one image, best first.

    Parameters
    ----------
    boxes : array_like, shape (N, 4)
        x0 y0 x1 y1 in pixels of the image.
    scores : array_like, shape (N,)
        In [0, 1].
    class_ids : array_like of int, shape (N,)
        COCO category ids for COCO-trained packs (person = 1).
    masks : CropMasks
        N masks. They learn their classes from `class_ids`.
    class_names : sequence of str, length N
        Name of each instance's class.
    track_ids : array_like of int, shape (N,), optional
        -1 where there is no track, which is also the default.
    keypoints : array_like, shape (N, 17, 3), optional
        x, y in pixels and a score in [0, 1] for each COCO keypoint.

    Attributes
    ----------
    boxes : ndarray of float32, shape (N, 4)
    scores : ndarray of float32, shape (N,)
    class_ids, track_ids : ndarray of int32, shape (N,)
    class_names : list of str
    masks : CropMasks
    keypoints : ndarray of float32, shape (N, 17, 3), or None
    size : (int, int)
        Height and width of the image.

    Raises
    ------
    InputError
        If the parts differ in length.
    """

    def __init__(
        self,
        boxes: ArrayLike,
        scores: ArrayLike,
        class_ids: ArrayLike,
        masks: CropMasks,
        class_names: Sequence[str],
        *,
        track_ids: ArrayLike | None = None,
        keypoints: ArrayLike | None = None,
    ) -> None:
        self.boxes: Floats = as_boxes(boxes)
        count = len(self.boxes)
        self.scores: Floats = np.asarray(scores, dtype=np.float32)
        self.class_ids: NDArray[np.int32] = np.asarray(class_ids, dtype=np.int32)
        self.track_ids: NDArray[np.int32] = (
            np.full(count, -1, np.int32)
            if track_ids is None
            else np.asarray(track_ids, dtype=np.int32)
        )
        self.class_names: list[str] = list(class_names)
        self.keypoints: Floats | None = (
            None if keypoints is None else np.asarray(keypoints, dtype=np.float32)
        )
        self.size: tuple[int, int] = masks.size
        for name, shape, expected in (
            ("scores", self.scores.shape, (count,)),
            ("class_ids", self.class_ids.shape, (count,)),
            ("track_ids", self.track_ids.shape, (count,)),
            ("class_names", (len(self.class_names),), (count,)),
            ("masks", (len(masks),), (count,)),
            (
                "keypoints",
                (count, 17, 3) if self.keypoints is None else self.keypoints.shape,
                (count, 17, 3),
            ),
        ):
            if shape != expected:
                raise InputError(f"{name}: shape {shape} for {count} boxes; give {expected}")
        self.masks: CropMasks = masks.with_class_ids(self.class_ids)

    @classmethod
    def empty(cls, height: int, width: int, *, keypoints: bool = False) -> Instances:
        """Return the result for an image of this size in which nothing was found.

        With `keypoints` it has none of them, shape (0, 17, 3), where it would have None.
        """
        none = np.zeros(0, np.float32)
        return cls(
            np.zeros((0, 4), np.float32), none, none, CropMasks.empty(height, width), [],
            keypoints=np.zeros((0, 17, 3), np.float32) if keypoints else None,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> Instances:
        """Return some of the instances.

        Parameters
        ----------
        index : int, slice, array_like of bool or of int
            Anything that indexes a NumPy array of length N; for an int the result has length 1.

        Returns
        -------
        Instances
        """
        chosen = np.atleast_1d(np.arange(len(self))[index])
        return Instances(
            self.boxes[chosen],
            self.scores[chosen],
            self.class_ids[chosen],
            self.masks[chosen],
            [self.class_names[n] for n in chosen.tolist()],
            track_ids=self.track_ids[chosen],
            keypoints=None if self.keypoints is None else self.keypoints[chosen],
        )

    def __repr__(self) -> str:
        found = ", ".join(
            f"{name} {score:.2f}"
            for name, score in zip(self.class_names, self.scores.tolist(), strict=True)
        )
        return f"Instances({len(self)} in {self.size[0]}x{self.size[1]}: {found or 'nothing'})"

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain Python objects, ready for :func:`json.dumps`.

        Returns
        -------
        dict
            ``{"size": [H, W], "instances": [...]}``, an instance being ``box`` (x0 y0 x1 y1 in
            pixels, two decimals), ``score`` (four decimals), ``class_id``, ``class_name``,
            ``track_id`` (None if none), ``area`` (pixels), ``centroid`` (x y, two decimals),
            ``segmentation`` (COCO RLE with the counts as str) and, if the model has them,
            ``keypoints`` (17 of [x, y, score]). What is missing or not finite is None.
        """
        height, width = self.size
        keypoints = self.keypoints
        columns = zip(
            self.boxes.tolist(),
            self.scores.tolist(),
            self.class_ids.tolist(),
            self.class_names,
            self.track_ids.tolist(),
            self.masks.areas.tolist(),
            self.masks.centroids.tolist(),
            self.masks.to_coco_rle(),
            strict=True,
        )
        instances = []
        for n, (box, score, class_id, name, track, area, centroid, rle) in enumerate(columns):
            item = {
                "box": [_rounded(value, 2) for value in box],
                "score": _rounded(score, 4),
                "class_id": class_id,
                "class_name": name,
                "track_id": track if track >= 0 else None,
                "area": area,
                "centroid": [_rounded(value, 2) for value in centroid],
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            }
            if keypoints is not None:
                item["keypoints"] = [
                    [_rounded(x, 2), _rounded(y, 2), _rounded(score, 4)]
                    for x, y, score in keypoints[n].tolist()
                ]
            instances.append(item)
        return {"size": [height, width], "instances": instances}

    def to_supervision(self) -> Any:
        """Return the result as ``supervision.Detections``, with dense masks.

        Raises
        ------
        RuntimeUnavailable
            An ImportError: the package supervision is not installed.
        """
        try:
            import supervision  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise RuntimeUnavailable(
                f"to_supervision() needs the package supervision, which does not import "
                f"({error}); install it: pip install supervision"
            ) from error
        tracked = len(self) > 0 and bool((self.track_ids >= 0).all())
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks.to_dense(),
            confidence=self.scores,
            class_id=self.class_ids.astype(int),
            tracker_id=self.track_ids.astype(int) if tracked else None,
            data={"class_name": np.array(self.class_names, dtype=str)},
        )


def _rounded(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
