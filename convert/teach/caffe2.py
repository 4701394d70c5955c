"""Reads caffe2 networks and runs them in TensorFlow.

A caffe2 model is two ``NetDef`` protobufs: an init net that fills tensors and a predict net that
uses them. Only the messages and fields that networks need are declared here (from caffe2.proto,
Apache-2.0, field numbers unchanged); the protobuf library skips the rest. Quantized weights are
turned back into real numbers and everything is computed in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

__all__ = ["Caffe2Error", "Net", "Operator", "load_net", "message_class"]

_MESSAGES: dict[str, list[tuple[str, int, str, bool]]] = {
    "Argument": [
        ("name", 1, "string", False),
        ("f", 2, "float", False),
        ("i", 3, "int64", False),
        ("s", 4, "bytes", False),
        ("floats", 5, "float", True),
        ("ints", 6, "int64", True),
        ("strings", 7, "bytes", True),
    ],
    "OperatorDef": [
        ("input", 1, "string", True),
        ("output", 2, "string", True),
        ("name", 3, "string", False),
        ("type", 4, "string", False),
        ("arg", 5, "Argument", True),
    ],
    "NetDef": [
        ("name", 1, "string", False),
        ("op", 2, "OperatorDef", True),
        ("external_input", 8, "string", True),
        ("external_output", 9, "string", True),
    ],
}


class Caffe2Error(ValueError):
    """A file is not a caffe2 network, or the network needs an operator that is not known here."""


@functools.cache
def _messages() -> dict[str, Any]:
    """Declare the messages; their classes by name."""
    field_types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="edgemask_convert/caffe2.proto", package="edgemask_convert.caffe2", syntax="proto2"
    )
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for field, number, kind, repeated in fields:
            label = field_types.LABEL_REPEATED if repeated else field_types.LABEL_OPTIONAL
            entry = declared.field.add(name=field, number=number, label=label)
            if kind in _MESSAGES:
                entry.type = field_types.TYPE_MESSAGE
                entry.type_name = f".{file.package}.{kind}"
            else:
                entry.type = field_types.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))
        for name in _MESSAGES
    }


def message_class(name: str) -> Any:
    """Return the protobuf class of ``Argument``, ``OperatorDef`` or ``NetDef``."""
    return _messages()[name]


@dataclass(frozen=True)
class Operator:
    """One operator: its type, tensor names, and arguments as plain Python values."""

    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    args: dict[str, Any]


def _argument(message: Any) -> Any:
    for field in ("i", "f", "s"):
        if message.HasField(field):
            return getattr(message, field)
    for field in ("ints", "floats", "strings"):
        if len(getattr(message, field)):
            return list(getattr(message, field))
    return []


def read_operators(path: str | Path) -> list[Operator]:
    """Read the operators of one ``NetDef`` file.

    Raises
    ------
    Caffe2Error
        The file cannot be read, is no protobuf, or holds no operator.
    """
    try:
        net = message_class("NetDef").FromString(Path(path).read_bytes())
    except OSError as error:
        raise Caffe2Error(f"cannot read {path}: {error.strerror or error}") from error
    except DecodeError as error:
        raise Caffe2Error(f"{path} is not a caffe2 NetDef ({error}): download it again") from error
    if not len(net.op):
        raise Caffe2Error(f"{path} is a NetDef without operators: give the model's .pb files")
    return [
        Operator(op.type, tuple(op.input), tuple(op.output), {a.name: _argument(a) for a in op.arg})
        for op in net.op
    ]


def _filled(op: Operator, path: str | Path) -> np.ndarray:
    """Return the tensor that an operator of the init net makes, dequantized to float32."""
    values, shape = op.args.get("values", []), op.args.get("shape", [])
    scale = np.float32(op.args.get("Y_scale", 1.0))
    if op.type == "GivenTensorFill":
        array = np.asarray(values, np.float32)
    elif op.type == "Int8GivenTensorFill":
        zero_point = np.float32(op.args.get("Y_zero_point", 0))
        array = (np.frombuffer(values, np.uint8).astype(np.float32) - zero_point) * scale
    elif op.type == "Int8GivenIntTensorFill":
        array = np.asarray(values, np.float32) * scale
    else:
        raise Caffe2Error(f"{path}: operator {op.type} fills a tensor in a way not known here")
    if array.size != np.prod(shape, dtype=np.int64):
        raise Caffe2Error(f"{path}: {op.outputs[0]} has {array.size} values for shape {shape}")
    return array.reshape(shape)


class Net:
    """A predict net with its weights.

    Parameters
    ----------
    operators : list of Operator
        Of the predict net, in order.
    weights : dict of str to ndarray
        By tensor name, float32; convolution kernels are (out, kh, kw, in / group).
    """

    def __init__(self, operators: list[Operator], weights: dict[str, np.ndarray]) -> None:
        self.operators = operators
        self.weights = weights

    def function(
        self, inputs: dict[str, Sequence[int | None]], outputs: Sequence[str]
    ) -> Callable[..., list[Any]]:
        """Compile the part of the net between some tensors.

        Parameters
        ----------
        inputs : dict of str to shape
            Tensors that the caller feeds, with their shapes (None: any size).
        outputs : sequence of str
            Tensors to compute.

        Returns
        -------
        callable
            Arrays in the order of `inputs` → list of tensors in the order of `outputs`. Images
            and feature maps are (N, H, W, C) everywhere: the net's layout changes do nothing.

        Raises
        ------
        Caffe2Error
            An output does not depend on these inputs alone, or an operator is not known.
        """
        import tensorflow as tf

        from .caffe2_ops import OPERATORS

        makers = {name: op for op in self.operators for name in op.outputs}
        needed: list[Operator] = []
        seen = set(inputs) | set(self.weights)

        def collect(name: str) -> None:
            if name in seen:
                return
            seen.add(name)
            op = makers.get(name)
            if op is None:
                raise Caffe2Error(f"no operator makes {name!r}, and it is not among {list(inputs)}")
            if op.type not in OPERATORS:
                raise Caffe2Error(
                    f"operator {op.type} (which makes {name!r}) is not known here: "
                    f"known are {', '.join(sorted(OPERATORS))}"
                )
            for source in op.inputs:
                collect(source)
            needed.append(op)

        for output in outputs:
            collect(output)

        @tf.function(input_signature=[tf.TensorSpec(s, tf.float32) for s in inputs.values()])
        def run(*arrays):
            tensors: dict[str, Any] = dict(zip(inputs, arrays, strict=True))
            for op in needed:
                arguments = [tensors[n] if n in tensors else self.weights[n] for n in op.inputs]
                tensors[op.outputs[0]] = OPERATORS[op.type](op.args, *arguments)
            return [tensors[name] for name in outputs]

        return run


def load_net(predict: str | Path, init: str | Path) -> Net:
    """Read a network from its two files, ``model.pb`` and ``model_init.pb``.

    Raises
    ------
    Caffe2Error
        See :func:`read_operators`.
    """
    weights = {op.outputs[0]: _filled(op, init) for op in read_operators(init)}
    return Net(read_operators(predict), weights)
