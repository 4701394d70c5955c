"""torchvision's Mask R-CNN with ResNet-50 and FPN, version 2, as a teacher (extra [torchvision]).

Its COCO weights (mask AP 41.8 on val2017, BSD licence) are downloaded by torchvision when they are
first used. A path of weights may be given instead, and random weights for tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemask import boxes as bx

from .coco import COCO_CATEGORIES
from .protocol import Floats, TeacherError
from .views import Found, ViewTeacher

__all__ = ["torchvision_maskrcnn"]

SCORE = 0.05
RANDOM = "random"


class _View:
    """One image at one size; follows torchvision's GeneralizedRCNN step by step."""

    def __init__(self, model: Any, image: NDArray[np.uint8], short_side: int) -> None:
        import torch

        self._model, self._torch = model, torch
        self._image_size = image.shape[:2]
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
        model.transform.min_size = (short_side,)
        model.transform.max_size = 2 * short_side
        with torch.inference_mode():
            self._images, _ = model.transform([tensor], None)
            self._features = model.backbone(self._images.tensors)
        height, width = self._images.image_sizes[0]
        self._factors = width / image.shape[1], height / image.shape[0]

    def detect(self) -> Found:
        model, sizes = self._model, self._images.image_sizes
        heads = model.roi_heads
        with self._torch.inference_mode():
            rois, _ = model.rpn(self._images, self._features, None)
            pooled = heads.box_head(heads.box_roi_pool(self._features, rois, sizes))
            logits, deltas = heads.box_predictor(pooled)
            boxes, scores, labels = heads.postprocess_detections(logits, deltas, rois, sizes)
        sx, sy = self._factors
        found = bx.clip(bx.scale(boxes[0].numpy(), 1 / sx, 1 / sy), *self._image_size)
        ids = labels[0].numpy().astype(np.int32)
        # Ids of the 11 categories that COCO dropped exist in the classifier too.
        real = np.isin(ids, list(COCO_CATEGORIES))
        return Found(found[real], scores[0].numpy()[real], ids[real])

    def masks(self, boxes: Floats, class_ids: NDArray[np.int32]) -> Floats:
        heads, torch = self._model.roi_heads, self._torch
        rois = torch.from_numpy(bx.scale(boxes, *self._factors))
        with torch.inference_mode():
            pooled = heads.mask_roi_pool(self._features, [rois], self._images.image_sizes)
            logits = heads.mask_predictor(heads.mask_head(pooled))
            index = torch.arange(len(boxes))
            own = logits[index, torch.from_numpy(class_ids.astype(np.int64))]
            masks: Floats = torch.sigmoid(own).numpy()
        return masks


def torchvision_maskrcnn(
    weights: str = "", short_sides: tuple[int, ...] = (800,), flip: bool = False
) -> ViewTeacher:
    """Make the teacher.

    Parameters
    ----------
    weights : str
        Empty for torchvision's COCO weights (downloaded once), the path of a state dict saved by
        torch, or ``random``: an untrained network, which tests the way without a connection.
    short_sides : tuple of int
    flip : bool

    Raises
    ------
    TeacherError
        torchvision is not installed, or the weights cannot be had.
    """
    try:
        import torch
        from torchvision.models.detection import maskrcnn_resnet50_fpn_v2
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise TeacherError(
            f"the torchvision teacher needs torch and torchvision ({error}): "
            "pip install 'edgemask[torchvision]'"
        ) from error
    settings = {"weights_backbone": None, "box_score_thresh": SCORE}
    try:
        if weights in ("", RANDOM):
            torch.manual_seed(0)
            model = maskrcnn_resnet50_fpn_v2(weights=None if weights else "DEFAULT", **settings)
        else:
            model = maskrcnn_resnet50_fpn_v2(weights=None, **settings)
            model.load_state_dict(torch.load(Path(weights), weights_only=True))
    except Exception as error:  # a failed download, a file of another kind, other layers
        raise TeacherError(
            f"torchvision's weights cannot be loaded ({error}): download them on a connected "
            "machine and give --teacher torchvision:FILE.pth"
        ) from error
    model.eval()
    return ViewTeacher(
        "torchvision maskrcnn_resnet50_fpn_v2",
        COCO_CATEGORIES,
        lambda image, side: _View(model, image, side),
        short_sides,
        flip,
    )
