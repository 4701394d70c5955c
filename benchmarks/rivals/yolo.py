"""yolo11n-seg from image array to full-resolution masks, on three runtimes, one thread.

What surrounds the network is written here from the published description of the output tensors:
boxes, class scores and 32 mask coefficients for each candidate, and 32 prototype masks at a
quarter of the input's size. It is meant to be fast: OpenCV for pictures, one matrix product for the
masks of what is left after non-maximum suppression.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgemask.nms import batched_nms

CLASSES, COEFFICIENTS = 80, 32
SCORE, IOU = 0.25, 0.7
Array = np.ndarray[Any, Any]


class Planted:
    """The output of a network that has found people, to be decoded in place of random numbers.

    A random network finds nothing, or everything; either would make decoding look cheaper or dearer
    than it is. Six candidates lie around each person, as with trained weights.
    """

    def __init__(self, size: int, anchors: int, people: int = 5, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.candidates = np.zeros((4 + CLASSES + COEFFICIENTS, anchors), np.float32)
        self.candidates[:4] = rng.uniform(0, 1, (4, anchors))
        self.candidates[4 : 4 + CLASSES] = rng.uniform(0, 0.1, (CLASSES, anchors))
        self.candidates[4 + CLASSES :] = rng.normal(0, 0.5, (COEFFICIENTS, anchors))
        columns = rng.choice(anchors, people * 6, replace=False).reshape(people, 6)
        for n, own in enumerate(columns):
            box = [0.17 + 0.33 * (n % 3), 0.3 + 0.35 * (n // 3), 0.25, 0.3]
            self.candidates[:4, own] = np.array(box)[:, None] + rng.normal(0, 0.004, (4, 6))
            self.candidates[4, own] = rng.uniform(0.5, 0.9, 6)
        self.prototypes = rng.normal(0, 1, (COEFFICIENTS, size // 4, size // 4)).astype(np.float32)


class Yolo:
    """One runtime at one size.

    Parameters
    ----------
    network : callable
        float32 or int8 (1, 3, S, S) → candidates (1, 116, A) and prototypes (1, 32, S/4, S/4).
    size : int
        S, pixels.
    int8 : bool
        Whether the network takes int8 in steps of 1/255 from -128.
    normalised : bool
        Whether its boxes are shares of S, and not pixels.
    """

    def __init__(
        self, network: Callable[[Array], tuple[Array, Array]], size: int, int8: bool,
        normalised: bool,
    ) -> None:  # fmt: skip
        self.network, self.size, self.int8, self.normalised = network, size, int8, normalised
        empty = np.zeros((1, 3, size, size), np.int8 if int8 else np.float32)
        candidates, _ = network(empty)
        self.planted = Planted(size, candidates.shape[2])
        if not normalised:
            self.planted.candidates[:4] *= size

    def prepare(self, rgb: Array) -> tuple[Array, float, int, int]:
        """Letterbox and convert; return the input, the scale, and the left and top margins."""
        height, width = rgb.shape[:2]
        scale = self.size / max(height, width)
        columns, rows = round(width * scale), round(height * scale)
        if (columns, rows) != (width, height):
            rgb = cv2.resize(rgb, (columns, rows), interpolation=cv2.INTER_LINEAR)
        left, top = (self.size - columns) // 2, (self.size - rows) // 2
        canvas = np.full((self.size, self.size, 3), 114, np.uint8)
        canvas[top : top + rows, left : left + columns] = rgb
        planes = np.ascontiguousarray(canvas.transpose(2, 0, 1))[None]
        if self.int8:
            return (planes ^ np.uint8(0x80)).view(np.int8), scale, left, top
        return planes.astype(np.float32) * np.float32(1 / 255), scale, left, top

    def __call__(self, rgb: Array) -> tuple[Array, Array, Array]:
        """Return boxes (N, 4), scores (N,) and dense masks (N, H, W)."""
        image, scale, left, top = self.prepare(rgb)
        self.network(image)
        return self.decode(
            self.planted.candidates, self.planted.prototypes, rgb.shape[:2], scale, left, top
        )

    def decode(
        self, candidates: Array, prototypes: Array, shape: tuple[int, int], scale: float, left: int,
        top: int,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """Turn outputs into instances in pixels of the image."""
        height, width = shape
        best = candidates[4 : 4 + CLASSES].max(axis=0)
        chosen = np.flatnonzero(best > SCORE)
        few = candidates[:, chosen]
        classes, scores = few[4 : 4 + CLASSES].argmax(axis=0), best[chosen]
        centres, sides = few[:2].T, few[2:4].T
        if self.normalised:
            centres, sides = centres * np.float32(self.size), sides * np.float32(self.size)
        boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
        kept = batched_nms(np.maximum(boxes, 0), scores, classes, IOU)
        boxes, scores, few = boxes[kept], scores[kept], few[:, kept]
        quarter = self.size // 4
        logits = few[4 + CLASSES :].T @ prototypes.reshape(COEFFICIENTS, -1)
        logits = logits.reshape(-1, quarter, quarter)
        x, y = left // 4, top // 4
        logits = logits[:, y : quarter - y, x : quarter - x]
        boxes = (boxes - np.array([left, top, left, top], np.float32)) / np.float32(scale)
        boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
        masks = np.zeros((len(boxes), height, width), bool)
        for n, (x0, y0, x1, y1) in enumerate(boxes.round().astype(int).tolist()):
            full = cv2.resize(logits[n], (width, height), interpolation=cv2.INTER_LINEAR)
            masks[n, y0:y1, x0:x1] = full[y0:y1, x0:x1] > 0
        return boxes, scores, masks


def litert(folder: Path, size: int) -> Yolo:
    """yolo11n-seg, int8, LiteRT with XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / f"yolo11n-seg-{size}.int8.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    outputs = interpreter.get_output_details()

    def network(image: Array) -> tuple[Array, Array]:
        interpreter.set_tensor(source["index"], image)
        interpreter.invoke()
        found = []
        for output in outputs:
            scale, zero_point = output["quantization"]
            raw = interpreter.get_tensor(output["index"]).astype(np.float32)
            raw -= np.float32(zero_point)
            raw *= np.float32(scale)
            found.append(raw)
        return found[0], found[1]

    return Yolo(network, size, int8=True, normalised=True)


def onnxruntime(folder: Path, size: int) -> Yolo:
    """yolo11n-seg, float32, ONNX Runtime."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(
        str(folder / f"yolo11n-seg-{size}.onnx"), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name

    def network(image: Array) -> tuple[Array, Array]:
        candidates, prototypes = session.run(None, {name: image})
        return candidates, prototypes

    return Yolo(network, size, int8=False, normalised=False)


def ncnn(folder: Path, size: int) -> Yolo:
    """yolo11n-seg, float32, ncnn on the CPU."""
    import ncnn as runtime

    net = runtime.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1
    source = folder / f"yolo11n-seg-{size}.ncnn"
    net.load_param(str(source / "model.ncnn.param"))
    net.load_model(str(source / "model.ncnn.bin"))

    def network(image: Array) -> tuple[Array, Array]:
        with net.create_extractor() as extractor:
            extractor.input("in0", runtime.Mat(image[0]))
            _, candidates = extractor.extract("out0")
            _, prototypes = extractor.extract("out1")
            return np.array(candidates)[None], np.array(prototypes)[None]

    return Yolo(network, size, int8=False, normalised=False)
