"""Reading and running caffe2 nets: small ones that the tests build, results worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.teach.caffe2 import Caffe2Error, load_net, message_class


def operator(kind: str, inputs: list[str], output: str, **args: Any) -> Any:
    """Return an OperatorDef message."""
    made = message_class("OperatorDef")(type=kind, input=inputs, output=[output])
    for name, value in args.items():
        argument = made.arg.add(name=name)
        if isinstance(value, bytes):
            argument.s = value
        elif isinstance(value, int):
            argument.i = value
        elif isinstance(value, float):
            argument.f = value
        elif value and isinstance(value[0], float):
            argument.floats.extend(value)
        else:
            argument.ints.extend(value)
    return made


def weights(name: str, array: np.ndarray, scale: float, zero_point: int) -> Any:
    """Return a quantized weight whose real values are those of the array."""
    levels = np.rint(array / scale) + zero_point
    assert levels.min() >= 0
    assert levels.max() <= 255
    return operator(
        "Int8GivenTensorFill", [], name, shape=list(array.shape),
        values=levels.astype(np.uint8).tobytes(), Y_scale=scale, Y_zero_point=zero_point,
    )  # fmt: skip


def bias(name: str, values: list[int], scale: float) -> Any:
    return operator(
        "Int8GivenIntTensorFill", [], name, shape=[len(values)], values=values, Y_scale=scale
    )


@pytest.fixture
def build(tmp_path: Path) -> Any:
    """Write two nets and load them."""

    def make(predict: list[Any], init: list[Any]) -> Any:
        for name, ops in (("model.pb", predict), ("model_init.pb", init)):
            net = message_class("NetDef")(name=name, op=ops)
            (tmp_path / name).write_bytes(net.SerializeToString())
        return load_net(tmp_path / "model.pb", tmp_path / "model_init.pb")

    return make


def run(net: Any, image: np.ndarray, output: str) -> np.ndarray:
    shape = (1, None, None, image.shape[-1])
    (result,) = net.function({"data": shape}, [output])(image.astype(np.float32))
    return result.numpy()


def test_dequantized_weights(build: Any) -> None:
    ops = [
        weights("w", np.array([[-1.0, 0.5]]), 0.5, 130),
        bias("b", [-4, 6], 0.25),
        operator("GivenTensorFill", [], "anchor", shape=[1, 2], values=[1.5, -2.0]),
    ]
    net = build([operator("Sigmoid", ["w"], "y")], ops)
    assert net.weights["w"].tolist() == [[-1.0, 0.5]]
    assert net.weights["b"].tolist() == [-1.0, 1.5]
    assert net.weights["anchor"].tolist() == [[1.5, -2.0]]
    assert all(array.dtype == np.float32 for array in net.weights.values())


def test_padded_strided_convolution(build: Any) -> None:
    kernel = np.zeros((2, 3, 3, 1))  # out 0: the centre; out 1: the sum of the nine
    kernel[0, 1, 1], kernel[1] = 1, 1
    net = build(
        [operator("Int8Conv", ["data", "w", "b"], "y", kernel=3, pad=1, stride=2)],
        [weights("w", kernel, 1.0, 128), bias("b", [0, 10], 1.0)],
    )
    image = np.arange(16.0).reshape(1, 4, 4, 1)
    y = run(net, image, "y")
    assert y.shape == (1, 2, 2, 2)
    assert y[0, :, :, 0].tolist() == [[0, 2], [8, 10]]
    # Rows and columns -1 … 1 and 1 … 3 of the image, zero outside.
    assert y[0, :, :, 1].tolist() == [[20, 34], [61, 100]]


def test_depthwise_convolution_and_relu(build: Any) -> None:
    kernel = np.zeros((2, 3, 3, 1))
    kernel[0, 1, 1], kernel[1, 1, 1] = 2, -1
    net = build(
        [
            operator("Int8Conv", ["data", "w", "b"], "c", kernel=3, pad=1, stride=1, group=2),
            operator("Int8Relu", ["c"], "r"),
            operator("Int8Sum", ["r", "data"], "y"),
        ],
        [weights("w", kernel, 1.0, 128), bias("b", [0, 0], 1.0)],
    )
    image = np.array([[[3.0, 5.0], [-1.0, -2.0]]])[None]
    assert run(net, image, "y")[0, 0].tolist() == [[9, 5], [-1, 0]]


def test_transposed_convolution(build: Any) -> None:
    kernel = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    net = build(
        [operator("Int8ConvTranspose", ["data", "w", "b"], "y", kernel=2, stride=2, pad=0)],
        [weights("w", kernel, 1.0, 128), bias("b", [1], 1.0)],
    )
    y = run(net, np.array([[[[1.0], [10.0]]]]), "y")
    assert y[0, :, :, 0].tolist() == [[2, 3, 11, 21], [4, 5, 31, 41]]


def test_bilinear_upsampling_by_a_transposed_convolution(build: Any) -> None:
    taps = np.array([0.25, 0.75, 0.75, 0.25])
    kernel = np.outer(taps, taps).reshape(1, 4, 4, 1)
    net = build(
        [operator("Int8ConvTranspose", ["data", "w", "b"], "y", kernel=4, stride=2, pad=1)],
        [weights("w", kernel, 1 / 16, 0), bias("b", [0], 1.0)],
    )
    y = run(net, np.ones((1, 3, 3, 1)), "y")
    assert y.shape == (1, 6, 6, 1)
    assert (y[0, 1:5, 1:5] == 1).all()
    assert y[0, 0, 0, 0] == pytest.approx(0.75**2)


def test_classifier(build: Any) -> None:
    net = build(
        [
            operator("Int8AveragePool", ["data"], "p", kernel=2, stride=1),
            operator("Int8FC", ["p", "w", "b"], "f"),
            operator("Int8Softmax", ["f"], "y"),
        ],
        [weights("w", np.array([[1.0], [-1.0]]), 1.0, 128), bias("b", [0, 2], 1.0)],
    )
    y = run(net, np.array([1.0, 2, 3, -2]).reshape(1, 2, 2, 1), "y")  # mean 1: logits 1 and 1
    np.testing.assert_allclose(y, [[0.5, 0.5]])


def test_only_the_part_that_is_asked_for_is_run(build: Any) -> None:
    net = build(
        [
            operator("Sigmoid", ["data"], "s"),
            operator("GenerateProposals", ["s"], "rois"),
            operator("RoIAlign", ["rois"], "features"),
            operator("NHWC2NCHW", ["features"], "f"),
            operator("Sigmoid", ["f"], "y"),
        ],
        [bias("b", [0], 1.0)],
    )
    tail = net.function({"features": (None,)}, ["y", "f"])
    y, f = tail(tf.constant([0.0, 0.0]))
    assert y.numpy().tolist() == [0.5, 0.5]
    assert f.numpy().tolist() == [0, 0]
    with pytest.raises(Caffe2Error, match=r"RoIAlign \(which makes 'features'\) is not known"):
        net.function({"data": (None,)}, ["y"])
    with pytest.raises(Caffe2Error, match="no operator makes 'z'"):
        net.function({"data": (None,)}, ["z"])


def test_damaged_files(tmp_path: Path, build: Any) -> None:
    good, bad = tmp_path / "good.pb", tmp_path / "bad.pb"
    net = message_class("NetDef")(op=[operator("Sigmoid", ["data"], "y")])
    good.write_bytes(net.SerializeToString())
    with pytest.raises(Caffe2Error, match="cannot read"):
        load_net(good, tmp_path / "missing.pb")
    bad.write_bytes(b"\xff\xff\xff not a protobuf")
    with pytest.raises(Caffe2Error, match="not a caffe2 NetDef"):
        load_net(good, bad)
    bad.write_bytes(b"")
    with pytest.raises(Caffe2Error, match="without operators"):
        load_net(good, bad)
    with pytest.raises(Caffe2Error, match="operator Sigmoid fills"):
        load_net(good, good)
    with pytest.raises(Caffe2Error, match="w has 1 values for shape"):
        build([], [operator("GivenTensorFill", [], "w", shape=[2], values=[1.0])])


def test_an_unusual_convolution_is_refused(build: Any) -> None:
    ops = [operator("Int8Conv", ["data", "w", "b"], "y", kernel=1, group=2)]
    fill = [weights("w", np.ones((4, 1, 1, 2)), 1.0, 0), bias("b", [0] * 4, 1.0)]
    net = build(ops, fill)
    with pytest.raises(ValueError, match="groups"):
        run(net, np.ones((1, 2, 2, 4)), "y")
