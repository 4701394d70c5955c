"""MaskRCNN2Go as a teacher: Facebook's Mask R-CNN for phones, 80 COCO classes, Apache-2.0.

The two files ``model.pb`` and ``model_init.pb`` are in the folder mask_rcnn_2go/model/int8 of
github.com/facebookarchive/models. The network is an inverted-residual trunk of stride 16 without
a feature pyramid (Chen et al., FBNet, 2019, is of the same family).

It was trained with Detectron's old convention: a box of corner pixels x1 y1 x2 y2, both included,
is ``x2 - x1 + 1`` wide, and RoIAlign reads the cell at coordinate / stride without the half-cell
shift. With ``x2 + 1`` as the half-open corner everything but RoIAlign is the usual convention.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemask import boxes as bx
from edgemask.nms import batched_nms, nms
from edgemask.roi_align import roi_align

from .caffe2 import Net, load_net
from .coco import COCO_CATEGORIES
from .protocol import Floats, TeacherError
from .views import Found, ViewTeacher

__all__ = ["maskrcnn2go"]

STRIDE = 16
POOLED = 6  # bins per side of both heads
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
PRE_NMS, POST_NMS, PROPOSAL_NMS = 3000, 120, 0.7
SCORE, DETECTION_NMS, MAX_DETECTIONS = 0.01, 0.5, 100
MAX_ASPECT = 2.0
# Of 320 to 800 and their weights, measured on photographs of people: docs/teach.md.
SHORT_SIDES, BEST_SIZE = (320, 480, 640, 800), 100.0
CHUNK = 32  # RoIs at a time: all classes' masks of more would not stay in the cache


class MaskRCNN2Go:
    """The network: three functions of the caffe2 net, and the tensors between them.

    Parameters
    ----------
    net : Net
    """

    def __init__(self, net: Net) -> None:
        image = {"data": (1, None, None, 3)}
        self.trunk = net.function(image, ["xif3_6", "rpn_cls_probs", "rpn_bbox_pred"])
        channels = net.weights["rpn_cls_logits_w_int8"].shape[3]
        roi = (None, POOLED, POOLED, channels)
        self.box_head = net.function({"roi_features": roi}, ["cls_prob", "bbox_pred"])
        self.mask_head = net.function({"_[mask]_pool5": roi}, ["mask_fcn_probs"])
        # Half-open: one more than the corner pixel.
        self.anchors = net.weights["anchor"] + np.array([0, 0, 1, 1], np.float32)

    def open(self, image: NDArray[np.uint8], short_side: int) -> _View:
        """Compute the features of an RGB image (H, W, 3) resized to `short_side`."""
        return _View(self, image, short_side)


class _View:
    """The image at one size; coordinates go in and out in pixels of the image."""

    def __init__(self, network: MaskRCNN2Go, image: NDArray[np.uint8], short_side: int) -> None:
        self._network = network
        self._image_size = height, width = image.shape[:2]
        scale = min(short_side / min(height, width), MAX_ASPECT * short_side / max(height, width))
        self._size = max(1, round(height * scale)), max(1, round(width * scale))
        self._factors = self._size[1] / width, self._size[0] / height
        picture = Image.fromarray(image).resize(self._size[::-1], Image.Resampling.BILINEAR)
        bgr = np.asarray(picture)[None, :, :, ::-1].astype(np.float32)
        features, scores, deltas = network.trunk(bgr)
        self._features = features.numpy()
        self._rpn = scores, deltas

    def detect(self) -> Found:
        rois = self._proposals()
        found = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
        if not len(rois):
            return found
        scores, deltas = (t.numpy() for t in self._network.box_head(self._pool(rois)))
        roi, column = np.nonzero(scores[:, 1:] >= SCORE)
        column += 1  # column 0 is the background
        steps = deltas.reshape(len(rois), -1, 4)[roi, column]
        boxes = bx.clip(bx.decode(steps, rois[roi], BOX_WEIGHTS), *self._size)
        values = scores[roi, column]
        kept = batched_nms(boxes, values, column, DETECTION_NMS, MAX_DETECTIONS)
        ids = np.array(list(COCO_CATEGORIES), np.int32)[column[kept] - 1]
        return Found(self._to_image(boxes[kept]), values[kept], ids)

    def masks(self, boxes: Floats, class_ids: NDArray[np.int32]) -> Floats:
        columns = np.searchsorted(list(COCO_CATEGORIES), class_ids) + 1
        pooled = self._pool(self._to_network(boxes))
        parts = []
        for start in range(0, len(boxes), CHUNK):
            (masks,) = self._network.mask_head(pooled[start : start + CHUNK])
            own = columns[start : start + CHUNK]
            parts.append(masks.numpy()[np.arange(len(own)), :, :, own])
        return np.concatenate(parts)

    def _proposals(self) -> Floats:
        scores, deltas = (t.numpy() for t in self._rpn)
        columns, count = scores.shape[2:]
        flat = scores.reshape(-1)
        order = np.argsort(-flat, kind="stable")[:PRE_NMS]
        cell, kind = np.divmod(order, count)
        row, column = np.divmod(cell, columns)
        corner = np.stack([column, row, column, row], 1).astype(np.float32) * np.float32(STRIDE)
        anchors = self._network.anchors[kind] + corner
        boxes = bx.decode(deltas.reshape(-1, 4)[order], anchors, RPN_WEIGHTS)
        boxes = bx.clip(boxes, *self._size)
        return boxes[nms(boxes, flat[order], PROPOSAL_NMS, POST_NMS)]

    def _pool(self, boxes: Floats) -> Floats:
        """RoIAlign without the half-cell shift, on corner pixels; boxes of the network's input."""
        low, high = boxes[:, :2], boxes[:, 2:] - 1
        high = np.maximum(high, low + STRIDE)  # at least one cell, as caffe2 has it
        rois = np.concatenate([low, high], 1) + np.float32(STRIDE / 2)
        ids = np.zeros(len(rois), np.int64)
        return roi_align([self._features], rois, ids, [STRIDE], POOLED, 2)

    def _to_image(self, boxes: Floats) -> Floats:
        sx, sy = self._factors
        last = np.array([0, 0, 1, 1], np.float32)
        return bx.clip(bx.scale(boxes - last, 1 / sx, 1 / sy) + last, *self._image_size)

    def _to_network(self, boxes: Floats) -> Floats:
        last = np.array([0, 0, 1, 1], np.float32)
        return bx.scale(boxes - last, *self._factors) + last


def maskrcnn2go(
    folder: str | Path, short_sides: tuple[int, ...] = SHORT_SIDES, flip: bool = True
) -> ViewTeacher:
    """Make the teacher from the folder of ``model.pb`` and ``model_init.pb``.

    Raises
    ------
    TeacherError
        The folder does not hold the two files.
    Caffe2Error
        A file is damaged.
    """
    paths = [Path(folder) / name for name in ("model.pb", "model_init.pb")]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise TeacherError(
            f"{' and '.join(missing)} missing: take model.pb and model_init.pb from the folder "
            "mask_rcnn_2go/model/int8 of github.com/facebookarchive/models"
        )
    network = MaskRCNN2Go(load_net(*paths))
    return ViewTeacher(
        "maskrcnn2go", COCO_CATEGORIES, network.open, short_sides, flip, best_size=BEST_SIZE
    )
