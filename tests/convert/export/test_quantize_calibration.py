"""What each precision stores, and what the heads are calibrated on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from edgemask_convert.export import quantize
from edgemask_convert.export.flatbuffer import stage_spec
from edgemask_convert.export.quantize import (
    QuantizationError,
    check_zero_points,
    convert_stage,
    head_samples,
    quantize_model,
)

from edgemask.interpreter import load_runtime

from ..conftest import CLASSES


def convolutions(content: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Operator and kernel of each convolution in a TFLite file."""
    interpreter = load_runtime().interpreter(model_content=content)
    tensors = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    return [
        (op["op_name"], tensors[int(op["inputs"][1])])
        for op in interpreter._get_ops_details()
        if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D")
    ]


def types(content: bytes) -> set[Any]:
    """Of all tensors but the indices."""
    details = load_runtime().interpreter(model_content=content).get_tensor_details()
    return {detail["dtype"] for detail in details} - {np.int32, np.int64}


def test_half_precision_stores_weights_in_two_bytes(tiny_model: Any) -> None:
    half, full = (
        convert_stage(tiny_model, "backbone", [], precision) for precision in ("float16", "float32")
    )
    assert len(half) < 0.65 * len(full)
    assert types(half) == {np.float16, np.float32}
    assert types(full) == {np.float32}


def test_each_output_channel_of_a_kernel_has_a_scale(tiny_pack: Any) -> None:
    for stage in ("backbone", "mask_head"):
        kernels = convolutions(tiny_pack.stages[stage])
        assert len(kernels) > 2
        for operator, kernel in kernels:
            channels = kernel["shape"][0 if operator == "CONV_2D" else -1]
            scales = kernel["quantization_parameters"]["scales"]
            assert len(scales) == channels, kernel["name"]


def test_all_samples_count_in_a_range(tiny_model: Any) -> None:
    samples = [np.full((2, 7, 7, 16), top, np.float32) for top in (1, 2, 5)]
    samples[0][:] = np.linspace(0, 1, samples[0].size).reshape(samples[0].shape)
    spec = stage_spec("box_head", convert_stage(tiny_model, "box_head", iter(samples)))
    assert spec["inputs"]["rois"]["scale"] == pytest.approx(5 / 255, rel=1e-5)


def test_a_limit_of_rois_takes_them_from_all_images() -> None:
    """RoI n holds the value n / 100; the first half comes from one image."""
    values = np.arange(1, 101, dtype=np.float32) / 100
    recorded = list(np.split(np.tile(values[:, None, None, None], (1, 2, 2, 3)), 2))
    taken = np.concatenate(head_samples(recorded, limit=40))[:, 1, 1, 2]
    assert len(taken) == 40
    assert 10 <= (taken > 0.5).sum() <= 30
    assert (np.diff(taken) < 0).any()


@pytest.fixture
def calibrated(tiny_pack: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[np.ndarray]]:
    """Samples by stage; no stage is converted again and no weight changed."""
    samples: dict[str, list[np.ndarray]] = {}

    def convert(model: Any, stage: str, given: Iterable[np.ndarray]) -> bytes:
        samples[stage] = list(given)
        return bytes(tiny_pack.stages[stage])

    monkeypatch.setattr(quantize, "convert_stage", convert)
    monkeypatch.setattr(quantize, "equalize", lambda model, given: {})
    return samples


def test_heads_see_what_the_int8_first_stage_gives(
    tiny_model: Any,
    tiny_pack: Any,
    drawn_images: list[np.ndarray],
    calibrated: dict[str, list[np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Level(quantize.Stage):
        """All features have the code 0, which is half of a level's range."""

        def run(self, **arrays: Any) -> dict[str, Any]:
            found = super().run(**arrays)
            return {k: np.zeros_like(v) if k[0] == "p" else v for k, v in found.items()}

    monkeypatch.setattr(quantize, "Stage", Level)
    quantize_model(tiny_model, CLASSES, drawn_images[:1])
    outputs = tiny_pack.stage_spec("backbone")["outputs"]
    halves = np.array([128 * outputs[f"p{level}"]["scale"] for level in (2, 3, 4, 5)])
    for head in ("box_head", "mask_head"):
        values = np.concatenate(calibrated[head]).ravel()
        np.testing.assert_array_equal(values[:2], [0, 6])
        assert np.isclose(values[2:, None], halves, rtol=1e-5).any(axis=1).all()


def test_heads_see_rois_of_all_images_up_to_a_limit(
    tiny_model: Any,
    drawn_images: list[np.ndarray],
    calibrated: dict[str, list[np.ndarray]],
) -> None:
    def counts(images: list[np.ndarray], **options: Any) -> tuple[int, int]:
        quantize_model(tiny_model, CLASSES, images, **options)
        box, mask = (sum(map(len, calibrated[f"{head}_head"])) for head in ("box", "mask"))
        return box, mask

    single = [counts([image]) for image in drawn_images[:2]]
    assert min(mask for _, mask in single) > 1  # not the best object only
    assert counts(drawn_images[:2]) == tuple(np.sum(single, axis=0))
    assert counts(drawn_images[:2], roi_limit=3) == (3, 3)


def test_levels_of_different_zero_points_are_refused_at_once(
    tiny_model: Any,
    drawn_images: list[np.ndarray],
    calibrated: dict[str, list[np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(stage: str, content: bytes) -> dict[str, Any]:
        spec = stage_spec(stage, content)
        spec["outputs"]["p3"]["zero_point"] = -7
        return spec

    monkeypatch.setattr(quantize, "stage_spec", broken)
    with pytest.raises(QuantizationError, match=r"different zero points.*'p3': -7"):
        quantize_model(tiny_model, CLASSES, drawn_images[:1])
    assert list(calibrated) == ["backbone"]


@pytest.mark.parametrize("head", ["box", "mask", "keypoint"])
def test_zero_points_of_each_head_are_compared(head: str) -> None:
    outputs = {
        "a": {"zero_point": -128},
        "b": {"zero_point": -128},
        "c": {"zero_point": 5},
    }
    roi = {name: {"features": ["a", "b"]} for name in ("box", "mask", "keypoint")}
    check_zero_points({"roi": roi}, {"outputs": outputs})
    roi[head] = {"features": ["a", "b", "c"]}
    with pytest.raises(QuantizationError, match=f"the {head} head's feature levels"):
        check_zero_points({"roi": roi}, {"outputs": outputs})
