"""MaskRCNN2Go's files as a network of this project."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.cli import main
from edgemask_convert.config import from_dict
from edgemask_convert.teach import caffe2_weights
from edgemask_convert.teach.caffe2 import Caffe2Error, Net
from edgemask_convert.teach.caffe2_weights import BILINEAR, import_maskrcnn2go

from ..conftest import TINY_2GO


class Tensors(dict):
    """Random tensors of any name, in caffe2's layout, for the layers of a tiny network."""

    def __init__(self) -> None:
        super().__init__()
        self.random = np.random.default_rng(0)
        self["anchor"] = np.array(
            [[-11.5, -8.4, 27.5, 24.4], [-40, -30, 56, 46], [-3, -3, 19, 20]], np.float32
        )
        self["mask_fcn_logits_up_w_int8"] = np.zeros((3, 4, 4, 3), np.float32)
        for index in range(3):
            self["mask_fcn_logits_up_w_int8"][index, :, :, index] = BILINEAR
        self["mask_fcn_logits_up_b_int8"] = np.zeros(3, np.float32)

    def fill(self, name: str, *shape: int) -> None:
        self[name] = self.random.normal(0, 0.3, shape).astype(np.float32)


def tensors() -> Tensors:
    """All tensors of a network with 16 expanded channels, 3 anchors and 2 classes."""
    made = Tensors()
    model = build_model(from_dict(TINY_2GO).model)
    for stage in model.stages.values():
        for layer in stage.layers:
            if not layer.weights:
                continue
            names = caffe2_weights._names(layer.name, Net([], {}))
            shape = tuple(layer.weights[0].shape)
            if layer.name.endswith("_depthwise"):
                made.fill(names[0], shape[2], *shape[:2], 1)
                continue
            made.fill(names[1], *layer.weights[1].shape)
            if layer.name == "mask_up":
                made.fill(names[0], shape[2], 2, 2, shape[3] // 4)
                made.fill(names[1], shape[3] // 4)
            else:
                made.fill(names[0], shape[-1], *shape[:-1])
    for name, extra in (("bbox_pred", 4), ("mask_fcn_logits", 1)):  # the background's
        for part in ("w", "b"):
            old = made[f"{name}_{part}_int8"]
            made.fill(f"{name}_{part}_int8", len(old) + extra, *old.shape[1:])
    return made


@pytest.fixture
def tiny_net(monkeypatch: pytest.MonkeyPatch) -> Net:
    """A tiny network's tensors, which any folder seems to hold."""
    net = Net([], tensors())
    monkeypatch.setattr(caffe2_weights, "load_net", lambda predict, init: net)
    boxes = caffe2_weights.unpruned_config(net.weights["anchor"]).model.rpn.anchor_boxes
    config = from_dict(TINY_2GO)
    config.model.rpn.anchor_boxes = boxes
    monkeypatch.setattr(caffe2_weights, "unpruned_config", lambda anchors: config)
    return net


def test_first_convolution_takes_bytes_in_the_other_order(tiny_net: Net) -> None:
    model = import_maskrcnn2go("anywhere")
    layer = model.first_stage.get_layer("Conv1")
    pixel = np.array([250.0, 3.0, 77.0])  # BGR
    kernel = tiny_net.weights["conv0_conv_w_int8"]
    expected = kernel[:, 1, 1] @ pixel
    taken = ((pixel[::-1] - 128) / 128) @ np.asarray(layer.kernel)[1, 1]
    # The other taps of the kernel see the same black that caffe2 sees: -1.
    black = np.asarray(layer.kernel).sum((0, 1, 2)) - np.asarray(layer.kernel)[1, 1].sum(0)
    found = taken - black + np.asarray(layer.bias)
    bias = tiny_net.weights["conv0_bn_b_int8"]
    np.testing.assert_allclose(found, expected + bias, rtol=1e-3, atol=1e-3)


def test_background_and_transposed_convolution(tiny_net: Net) -> None:
    model = import_maskrcnn2go("anywhere")
    deltas = np.asarray(model.box_head.get_layer("box_deltas").kernel)
    np.testing.assert_array_equal(deltas, tiny_net.weights["bbox_pred_w_int8"][4:].T)
    scores = np.asarray(model.box_head.get_layer("box_logits").bias)
    np.testing.assert_array_equal(scores, tiny_net.weights["cls_score_b_int8"])
    masks = np.asarray(model.mask_head.get_layer("mask_logits").bias)
    np.testing.assert_array_equal(masks, tiny_net.weights["mask_fcn_logits_b_int8"][1:])
    # One cell of ones: its four pixels are the four taps of the transposed kernel.
    up = model.mask_head.get_layer("mask_up")
    value = np.asarray(up.kernel)[0, 0].sum(0) + np.asarray(up.bias)
    taps = model.mask_head.get_layer("mask_depth_to_space")(value[None, None, None])
    expected = tiny_net.weights["conv5_mask_w_int8"].sum(0) + tiny_net.weights["conv5_mask_b_int8"]
    np.testing.assert_allclose(np.asarray(taps)[0], expected, rtol=1e-4, atol=1e-4)


def test_anchors_keep_their_place(tiny_net: Net) -> None:
    """caffe2's first cell looks at pixel 0 of its image, ours at pixel 7, one before the middle."""
    model = import_maskrcnn2go("anywhere")
    boxes = np.array(model.config.rpn.anchor_boxes)
    first = tiny_net.weights["anchor"] + [0, 0, 1, 1]  # half-open
    np.testing.assert_allclose(boxes + 8, first + 7, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda w: w.pop("anchor"), "anchor"),
        (lambda w: w.pop("cls_score_w_int8"), "cls_score_w_int8"),
        (lambda w: w.update(cls_score_b_int8=np.zeros(5, np.float32)), "box_logits has shape"),
        (
            lambda w: w.update(mask_fcn_logits_up_w_int8=np.ones((3, 4, 4, 3), np.float32)),
            "bilinear",
        ),
        (
            lambda w: w.update(mask_fcn_logits_up_w_int8=np.ones((3, 2, 2, 3), np.float32)),
            "bilinear",
        ),
    ],
)
def test_another_network(tiny_net: Net, change: Any, word: str) -> None:
    change(tiny_net.weights)
    with pytest.raises(Caffe2Error, match=word):
        import_maskrcnn2go("anywhere")


def test_folder_without_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["import-maskrcnn2go", "--weights", str(tmp_path), "--out", str(tmp_path / "o.npz")]
    assert main(command) == 1
    assert "model_init.pb" in capsys.readouterr().err
    assert not (tmp_path / "o.npz").exists()


def shared(*parts: str) -> Path:
    path = Path(os.environ.get("EDGEMASK_SHARED", "../shared")).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not there: set EDGEMASK_SHARED")
    return path


@pytest.mark.dataset
def test_the_published_network_computes_the_same() -> None:
    """Trunk and RPN on an image moved by seven pixels, the heads on the same regions."""
    import tensorflow as tf
    from edgemask_convert.teach.caffe2 import load_net
    from edgemask_convert.teach.maskrcnn2go import MaskRCNN2Go
    from shapes import draw_image

    folder = shared("weights", "maskrcnn2go")
    theirs = MaskRCNN2Go(load_net(folder / "model.pb", folder / "model_init.pb"))
    ours = import_maskrcnn2go(folder)
    image = draw_image(np.random.default_rng(0), 320, 416)[0].astype(np.float32)
    features, scores, _ = theirs.trunk(image[None, 7:, 7:, ::-1])
    found = ours.first_stage((image[None] - 128) / 128)
    inner = np.s_[:, 8:-8, 8:-8]  # further out, the paddings differ
    expected = np.asarray(features)[inner]
    gap = np.abs(np.asarray(found["c4"])[:, :20, :26][inner] - expected)
    assert gap.mean() < 0.01 * np.abs(expected).mean()
    chances = np.asarray(tf.sigmoid(found["rpn_logits_4"]))[:, :20, :26][inner]
    # The RPN sees further than the trunk: single anchors feel the border, the mean does not.
    assert np.abs(chances - np.asarray(scores)[inner]).mean() < 0.01

    rois = np.random.default_rng(1).normal(0, 0.5, (4, 6, 6, 128)).astype(np.float32)
    shares, deltas = theirs.box_head(rois)
    head = ours.box_head(rois)
    np.testing.assert_allclose(tf.nn.softmax(head["logits"]), shares, atol=1e-5)
    np.testing.assert_allclose(head["deltas"], np.asarray(deltas)[:, 4:], atol=1e-5)
    (masks,) = theirs.mask_head(rois)
    ours_masks = np.asarray(tf.sigmoid(ours.mask_head(rois)["logits"]))
    edge = np.s_[:, 2:-2, 2:-2]  # caffe2 pads with zeros there, a resize repeats
    np.testing.assert_allclose(ours_masks[edge], np.asarray(masks)[edge][..., 1:], atol=0.01)
