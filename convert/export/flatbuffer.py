"""What a TFLite file says about itself: named inputs and outputs, sizes, arithmetic."""

from __future__ import annotations

import hashlib
import math
from typing import Any

from edgemask.interpreter import load_runtime

FILES = {
    "backbone": "backbone.tflite",
    "box_head": "box_head.tflite",
    "mask_head": "mask_head.tflite",
    "keypoint_head": "keypoint_head.tflite",
}


def _tensor(detail: dict[str, Any]) -> dict[str, Any]:
    scale, zero_point = detail["quantization"]
    return {
        "tensor": detail["name"],
        "shape": [None if n == -1 else int(n) for n in detail["shape_signature"]],
        "dtype": detail["dtype"].__name__,
        "scale": float(scale) or None,
        "zero_point": int(zero_point),
    }


def stage_spec(stage: str, content: bytes) -> dict[str, Any]:
    """The manifest entry of one stage, read from its flatbuffer.

    The signature in the file maps the names we gave (``p3``, ``logits`` …) to
    tensors; the device then finds them by tensor name, never by position.
    """
    interpreter = load_runtime().interpreter(model_content=content)
    signatures = interpreter._get_full_signature_list()
    if len(signatures) != 1:
        raise ValueError(f"stage {stage} has {len(signatures)} signatures, not 1")
    signature = next(iter(signatures.values()))
    details = {
        d["index"]: d for d in interpreter.get_input_details() + interpreter.get_output_details()
    }
    return {
        "file": FILES[stage],
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "inputs": {k: _tensor(details[i]) for k, i in signature["inputs"].items()},
        "outputs": {k: _tensor(details[i]) for k, i in signature["outputs"].items()},
    }


def count_macs(content: bytes, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of one run at the given input shape.

    Counted from the operators that are in the file: convolutions, depthwise
    convolutions and fully connected layers. Elementwise work is not counted.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], shape)
    interpreter.allocate_tensors()
    shapes = {d["index"]: d["shape"] for d in interpreter.get_tensor_details()}
    total = 0
    for op in interpreter._get_ops_details():
        if op["op_name"] not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        output = shapes[int(op["outputs"][0])]
        kernel = shapes[int(op["inputs"][1])]
        # CONV_2D (out, kh, kw, in), DEPTHWISE (1, kh, kw, c), FULLY_CONNECTED (out, in)
        per_output = math.prod(int(n) for n in kernel[1:])
        if op["op_name"] == "DEPTHWISE_CONV_2D":
            per_output //= int(kernel[-1])
        total += math.prod(int(n) for n in output) * per_output
    return total
