"""Post-training int8 quantization of the stages.

Per-channel weights, int8 activations and int8 in and out. Scores, boxes and
masks leave the graph as raw logits in tensors of their own: a sigmoid inside,
or one tensor for scores and deltas, would leave a third of the score levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from edgemask.geometry import fit_input
from edgemask.images import load_image
from edgemask.pipeline import Pipeline
from edgemask.runtime import Stage
from edgemask.shrink import Shrinker

from ..arch.keras_stages import INPUTS, KerasStage
from ..arch.layout import layout
from ..arch.manifest import build_manifest
from ..arch.model import MaskRCNN
from ..quiet import held_back
from .equalize import equalize
from .flatbuffer import stage_spec

HEAD_BATCH = 32  # RoIs per calibration call

# Shows how far a loop has come: gets what it goes over and what it does, and returns the former.
Watch = Callable[[Any, str], Iterable[Any]]


def unwatched(items: Any, title: str) -> Iterable[Any]:
    """Return the items: the :data:`Watch` that shows nothing."""
    return items


class QuantizationError(RuntimeError):
    """A stage could not be converted as the device needs it."""


def _input_shape(model: MaskRCNN, stage: str) -> list[int | None]:
    if stage == "backbone":
        return [1, None, None, 3]
    head = getattr(model.config, stage)
    return [None, head.output_size, head.output_size, layout(model.config).channels]


def convert_stage(
    model: MaskRCNN, stage: str, samples: Iterable[np.ndarray], precision: str = "int8"
) -> bytes:
    """Convert one stage to TFLite.

    Parameters
    ----------
    model : MaskRCNN
    stage : ``backbone``, ``box_head``, ``mask_head`` or ``keypoint_head``
    samples : iterable of float32 arrays
        Calibration inputs, in the range that the stage sees on the device.
    precision : ``int8``, ``float16`` or ``float32``
        float16 stores the weights in half precision and computes in float32.

    Returns
    -------
    bytes
        The flatbuffer.
    """
    keras_model = model.stages[stage]
    name = INPUTS[stage]

    @tf.function(input_signature=[tf.TensorSpec(_input_shape(model, stage), tf.float32, name=name)])
    def serve(x):
        return keras_model(x, training=False)

    class Module(tf.Module):
        pass

    module = Module()
    module.serve = serve
    module.variables_ = [v.value for v in keras_model.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [serve.get_concrete_function()], module
    )
    if precision == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    elif precision == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([s] for s in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    elif precision != "float32":
        raise QuantizationError(f"precision {precision!r} is not one of int8, float16, float32")
    with held_back():  # the converter prints numbers of its own enumerations
        content: bytes = converter.convert()
    return content


def image_samples(images: Iterable[np.ndarray], manifest: dict[str, Any]) -> Iterator[np.ndarray]:
    """Calibration inputs of the first stage: (1, H, W, 3) float32 in [-1, 1).

    Resized as on the device, where a pixel that no average softens has a wider range.
    One pixel is set to black and one to white, so that the input's range is
    exactly [-1, 127/128] and its int8 code is the uint8 value minus 128.
    """
    spec = manifest["input"]
    shrinker = Shrinker(averaged=spec.get("resize", "averaged") == "averaged")
    for rgb in images:
        size = fit_input(*rgb.shape[:2], spec["short_side"], spec["stride"], spec["max_aspect"])
        x = (shrinker(rgb, size).astype(np.float32) - spec["mean"]) / spec["std"]
        x[0, 0], x[0, 1] = -1.0, 127 / 128
        yield x[None].astype(np.float32)


class Recorder(KerasStage):
    """A float head that remembers what it was given, in `seen`."""

    def __init__(self, model, name: str, seen: list[np.ndarray] | None = None):
        super().__init__(model, name)
        self.seen: list[np.ndarray] = [] if seen is None else seen

    def run(self, **arrays):
        self.seen.append(arrays["rois"].copy())
        return super().run(**arrays)


def feature_range(model: MaskRCNN, spec: dict[str, Any]) -> tuple[float, float]:
    """Least and greatest value of the features, which are the heads' inputs.

    Parameters
    ----------
    model : MaskRCNN
    spec : dict
        The manifest's entry of the quantized first stage.
    """
    if model.layout.clamped:
        return 0.0, 6.0  # the limits of a ReLU6
    (name,) = model.layout.features
    code = spec["outputs"][name]
    low, high = ((q - code["zero_point"]) * code["scale"] for q in (-128, 127))
    return low, high


def head_samples(
    rois: list[np.ndarray],
    limit: int,
    seed: int = 0,
    limits: tuple[float, float] = (0.0, 6.0),
) -> list[np.ndarray]:
    """Shuffle recorded RoI features into calibration batches.

    Two values are set to the limits of the features: the head's input then has the same int8
    code as the first stage's output.
    """
    features = np.concatenate(rois)
    order = np.random.default_rng(seed).permutation(len(features))[:limit]
    batches = np.array_split(features[order], max(1, len(order) // HEAD_BATCH))
    batches[0] = batches[0].copy()
    batches[0].flat[0], batches[0].flat[1] = limits
    return [b.astype(np.float32) for b in batches]


def quantize_model(
    model: MaskRCNN,
    classes: list[dict[str, Any]],
    images: Sequence[np.ndarray],
    roi_limit: int = 1500,
    progress=lambda text: None,
    watch: Watch = unwatched,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Quantize all stages; the heads see RoIs that the int8 first stage really produces.

    Parameters
    ----------
    model : MaskRCNN
        The weights of its first stage are changed in place, see :mod:`.equalize`: the channels
        between convolutions are scaled, and what it computes stays the same.
    classes : list of ``{"id", "name"}``
    images : sequence of uint8 RGB arrays
        Some hundred ordinary photographs of the kind the model is for.
    roi_limit : int
        RoIs per head to calibrate on.
    progress : callable
        Told what is being done.
    watch : callable
        Goes around every loop, as tqdm does.

    Returns
    -------
    manifest : dict
        ``model.json`` with its ``stages``, without description and metrics.
    stages : dict of str to bytes

    Raises
    ------
    QuantizationError
        No RoI was found to calibrate the heads on, or the pyramid's levels did
        not get one common zero point.
    """
    manifest = build_manifest(model.config, classes)
    samples = list(image_samples(watch(images, "reading images"), manifest))
    progress("equalizing channels")
    equalize(model.first_stage, watch(samples, "equalizing channels"))
    progress("quantizing backbone")
    watched = watch(samples, "calibrating backbone")
    stages = {"backbone": convert_stage(model, "backbone", watched)}
    specs = {"backbone": stage_spec("backbone", stages["backbone"])}
    check_zero_points(manifest, specs["backbone"])
    recorders = {name: Recorder(m, name) for name, m in model.stages.items() if name != "backbone"}
    pipeline = Pipeline(
        manifest, {"backbone": Stage(stages["backbone"], specs["backbone"]), **recorders}
    )
    progress("collecting RoIs")
    for rgb in watch(images, "collecting RoIs"):
        pipeline(rgb, score_threshold=0.05, max_detections=20)
    for name, recorder in recorders.items():
        if not recorder.seen:
            raise QuantizationError(
                f"the network found nothing in {len(images)} images, so {name} cannot be "
                "calibrated: train it further, or give images that show its classes"
            )
        progress(f"quantizing {name}")
        limits = feature_range(model, specs["backbone"])
        samples = head_samples(recorder.seen, roi_limit, limits=limits)
        stages[name] = convert_stage(model, name, watch(samples, f"calibrating {name}"))
        specs[name] = stage_spec(name, stages[name])
    manifest["stages"] = specs
    return manifest, stages


def convert_float(
    model: MaskRCNN, classes: list[dict[str, Any]], precision: str, progress=lambda text: None
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Convert all stages to ``float16`` or ``float32``; nothing is calibrated.

    Inputs and outputs are float32 in both: the device's pipeline follows the manifest.

    Returns
    -------
    manifest, stages
        As :func:`quantize_model` returns them.
    """
    manifest = build_manifest(model.config, classes)
    stages = {}
    for name in model.stages:
        progress(f"converting {name} to {precision}")
        stages[name] = convert_stage(model, name, [], precision)
    manifest["stages"] = {name: stage_spec(name, content) for name, content in stages.items()}
    return manifest, stages


def check_zero_points(manifest: dict[str, Any], spec: dict[str, Any]) -> None:
    """RoIAlign subtracts one zero point for all levels of a head; their scales may differ."""
    for head in [h for h in ("box", "mask", "keypoint") if h in manifest["roi"]]:
        names = manifest["roi"][head]["features"]
        found = {n: spec["outputs"][n]["zero_point"] for n in names}
        if len(set(found.values())) > 1:
            raise QuantizationError(
                f"the {head} head's feature levels have different zero points {found}: end every "
                "level in a ReLU6, whose zero point is always -128"
            )


class _Photographs(Sequence):
    """See :func:`load_images`."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return _Photographs(self.paths[index])
        return load_image(self.paths[index])


def load_images(paths: Sequence[Path]) -> Sequence[np.ndarray]:
    """Photographs for calibration, each decoded when it is looked at.

    All of them together, at full size, would not fit into the memory of most machines.
    """
    return _Photographs(paths)
