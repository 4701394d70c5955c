"""Which tensor of an int8 network does the damage: float and int8 side by side, tensor by tensor.

Both files of a stage come from the same graph, so their tensors have the same names. Each is run on
the inputs that the stage gets in the int8 network, with every tensor kept, and the error of a
tensor is held against that of the tensors it was computed from: what is lost already is not its
fault.

The measure is the noise-to-signal ratio of each channel, at most 1, averaged over the channels. One
ratio for the whole tensor would miss the commonest fault: a channel so much larger than the others
that their values fall into a few steps of the common scale, while the tensor's power is nearly all
in the large one and looks exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgemask.pipeline import Pipeline
from edgemask.quant import dequantize
from edgemask.runtime import Stage

from ..arch.keras_stages import INPUTS
from ..arch.model import MaskRCNN
from .quantize import Watch, convert_stage, unwatched

MAX_SAMPLES = 8  # runs of a head; each has all RoIs of an image


@dataclass(frozen=True)
class TensorError:
    """Error of one tensor.

    Attributes
    ----------
    stage : str
    layer : str
        The layer that computes the tensor, or the name of the stage's output.
    operator : str
        TFLite's name of it.
    tensor : str
        Name in the files.
    sqnr : float
        Signal to quantization noise of the whole tensor in dB.
    lost : float
        Noise-to-signal ratio from 0 to 1, mean over the channels.
    added : float
        `lost` less that of the worst input: what this tensor has to answer for.
    ruined : int
        Channels whose noise is above their signal.
    channels : int
        Channels that vary at all.
    """

    stage: str
    layer: str
    operator: str
    tensor: str
    sqnr: float
    lost: float
    added: float
    ruined: int
    channels: int


class _Network:
    """A TFLite file whose every tensor can be read after a run."""

    def __init__(self, content: bytes):
        self.interpreter = Interpreter(
            model_content=content,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        self.input = self.interpreter.get_input_details()[0]
        self.shape: tuple[int, ...] = ()
        (signature,) = self.interpreter._get_full_signature_list().values()
        self.outputs = {int(index): name for name, index in signature["outputs"].items()}

    def run(self, value: np.ndarray) -> None:
        if value.shape != self.shape:
            self.interpreter.resize_tensor_input(self.input["index"], value.shape)
            self.interpreter.allocate_tensors()
            self.shape = value.shape
        self.interpreter.set_tensor(self.input["index"], value)
        self.interpreter.invoke()

    def details(self) -> dict[int, dict[str, Any]]:
        """By index: name, scale and so on of every tensor."""
        return {d["index"]: d for d in self.interpreter.get_tensor_details() if d["name"]}

    def operators(self) -> Iterator[tuple[str, list[int], list[int]]]:
        """Kind, inputs and outputs of every operator, in the order of the graph."""
        for op in self.interpreter._get_ops_details():
            inputs, outputs = ([int(t) for t in op[side]] for side in ("inputs", "outputs"))
            yield op["op_name"], inputs, outputs

    def value(self, detail: Mapping[str, Any]) -> np.ndarray:
        """A tensor as float32."""
        raw = self.interpreter.get_tensor(detail["index"])
        scale, zero_point = detail["quantization"]
        return dequantize(raw, scale, zero_point) if scale else raw.astype(np.float32)


def compare_stage(
    stage: str, exact: bytes, quantized: bytes, samples: Sequence[np.ndarray], layers: set[str]
) -> list[TensorError]:
    """Errors of every tensor that a stage computes, in the order of the graph.

    Parameters
    ----------
    stage : str
    exact, quantized : bytes
        The same stage as float32 and as int8 TFLite.
    samples : sequence of int8 arrays
        Inputs of the int8 stage.
    layers : set of str
        Names of the Keras layers, to find them in the tensors' names.
    """
    reference, network = _Network(exact), _Network(quantized)
    by_name = {detail["name"]: detail for detail in network.details().values()}
    sums: dict[int, np.ndarray] = {}
    for sample in samples:
        network.run(sample)
        reference.run(dequantize(sample, *network.input["quantization"]))
        details = reference.details()
        for _, _, outputs in reference.operators():
            for index in outputs:
                twin = by_name.get(details[index]["name"])
                if twin is not None:
                    sums[index] = sums.get(index, 0) + _power(
                        reference.value(details[index]), network.value(twin)
                    )
    details = reference.details()
    lost: dict[int, float] = {}
    found = []
    for kind, inputs, outputs in reference.operators():
        before = max((lost[index] for index in inputs if index in lost), default=0.0)
        for index in outputs:
            if index not in sums:  # merged into another operator in the int8 file
                lost[index] = before
                continue
            sqnr, ratio, ruined, channels = _noise(sums[index])
            lost[index] = ratio
            name = details[index]["name"]
            label = reference.outputs.get(index) or _layer(name, layers)
            found.append(
                TensorError(
                    stage, label, kind, name, round(sqnr, 1), round(ratio, 4),
                    round(max(ratio - before, 0.0), 4), ruined, channels,
                )
            )  # fmt: skip
    return found


def _power(exact: np.ndarray, approximate: np.ndarray) -> np.ndarray:
    """Per channel (last axis): count, sum, squares, squared errors; (4, C) float64."""
    a = exact.reshape(-1, exact.shape[-1]).astype(np.float64)
    error = a - approximate.reshape(a.shape)
    count = np.full(a.shape[1], len(a))
    return np.stack([count, a.sum(0), (a**2).sum(0), (error**2).sum(0)])


def _noise(sums: np.ndarray) -> tuple[float, float, int, int]:
    """SQNR in dB, mean noise-to-signal ratio, ruined channels, channels that vary."""
    count, total, squares, noise = sums
    variance = squares / count - (total / count) ** 2
    whole = squares.sum() / count.sum() - (total.sum() / count.sum()) ** 2
    sqnr = 10 * np.log10(max(whole, 1e-12) / max(noise.sum() / count.sum(), 1e-12))
    alive = variance > 1e-9 * max(variance.max(), 1e-12)
    if not alive.any():
        return float(sqnr), 0.0, 0, 0
    ratios = noise[alive] / count[alive] / variance[alive]
    return float(sqnr), float(np.minimum(ratios, 1).mean()), int((ratios > 1).sum()), len(ratios)


def _layer(tensor: str, layers: set[str]) -> str:
    """The layer in a tensor's name; of several that were fused, the one with a kernel is last."""
    parts = re.split("[/;]", tensor)
    names = [p if p in layers else re.sub(r"_\d+$", "", p) for p in parts]
    own = [name for name in names if name in layers]
    plain = [name for name in own if not name.endswith(("_relu", "_bn", "_BN"))]
    return (plain or own or [tensor])[0]


class _Tap:
    """Passes a stage on and keeps what it was given."""

    def __init__(self, stage: Stage, name: str):
        self._stage = stage
        self._input = INPUTS[name]
        self.seen: list[np.ndarray] = []

    def run(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        if len(self.seen) < MAX_SAMPLES:
            self.seen.append(arrays[self._input].copy())
        return self._stage.run(**arrays)

    def quantization(self, name: str) -> tuple[float, int]:
        return self._stage.quantization(name)


def pack_errors(
    model: MaskRCNN,
    manifest: Mapping[str, Any],
    stages: Mapping[str, bytes],
    images: Sequence[np.ndarray],
    watch: Watch = unwatched,
) -> list[TensorError]:
    """Errors of every tensor of an int8 network, the greatest damage first.

    Parameters
    ----------
    model : MaskRCNN
        The float parent.
    manifest, stages
        As :func:`.quantize.quantize_model` returned them.
    images : sequence of uint8 RGB arrays
        Some photographs of the kind the model is for; `MAX_SAMPLES` are used.
    watch : callable
        Goes around the loop over the stages, as tqdm does.
    """
    taps = {n: _Tap(Stage(data, manifest["stages"][n]), n) for n, data in stages.items()}
    pipeline = Pipeline(manifest, taps)
    for rgb in images[:MAX_SAMPLES]:
        pipeline(rgb, score_threshold=0.05, max_detections=20)
    found = []
    for name, tap in watch(taps.items(), "comparing tensors"):
        exact = convert_stage(model, name, [], "float32")
        layers = {layer.name for layer in model.stages[name].layers}
        found += compare_stage(name, exact, stages[name], tap.seen, layers)
    return sorted(found, key=lambda error: -error.added)


def as_markdown(errors: Sequence[TensorError], rows: int = 40) -> str:
    """A table of the worst tensors."""
    head = (
        "| stage | layer | operator | added | lost | SQNR dB | ruined channels |\n"
        "|---|---|---|---|---|---|---|\n"
    )

    def line(e: TensorError) -> str:
        figures = f"{e.added:.4f} | {e.lost:.4f} | {e.sqnr:.1f} | {e.ruined} of {e.channels}"
        return f"| {e.stage} | {e.layer} | {e.operator} | {figures} |\n"

    worst = "".join(line(e) for e in errors[:rows])
    return (
        "# Quantization error by tensor\n\n"
        "*lost*: noise-to-signal ratio of int8 against float32, mean over the channels, 0 to 1. "
        "*added*: *lost* less that of the worst input, what the tensor has to answer for. "
        f"Sorted by it; {min(rows, len(errors))} of {len(errors)} tensors.\n\n{head}{worst}"
    )
