"""A stage: views without copies, any size, and a refusal of what would crash the runtime."""

from __future__ import annotations

import copy
import functools
import warnings

import numpy as np
import pytest
from synthetic import DATA, stage_spec

from edgemask import runtime
from edgemask.errors import InputError, ModelError
from edgemask.runtime import Stage, load_runtime


def make_stage(name, threads=1, **changes):
    """Return a Stage on one of the small flatbuffers."""
    return Stage((DATA / f"{name}.tflite").read_bytes(), stage_spec(name) | changes, threads)


@pytest.fixture
def backbone():
    return make_stage("backbone")


@pytest.fixture
def head():
    return make_stage("head")


def image(*shape):
    return np.random.default_rng(0).integers(-128, 128, shape, dtype=np.int8)


def test_one_file_at_any_size(backbone):
    small = backbone.run(image=image(1, 32, 64, 3))
    assert small["p2"].shape == (1, 16, 32, 8)
    assert small["rpn_logits_2"].shape == (1, 16, 32, 4)
    assert backbone.run(image=image(1, 64, 32, 3))["p2"].shape == (1, 32, 16, 8)


def test_outputs_are_those_of_the_interpreter(backbone):
    outputs = backbone.run(image=image(1, 32, 32, 3))
    details = {d["name"]: d["index"] for d in backbone._interpreter.get_output_details()}
    theirs = backbone._interpreter.get_tensor(details["Identity_1"])
    np.testing.assert_array_equal(outputs["p2"], theirs)
    assert outputs["p2"].dtype == np.int8


def test_outputs_are_read_only_views_that_do_not_block_the_next_run(backbone):
    pixels = image(1, 32, 32, 3)
    first = backbone.run(image=pixels)["p2"]
    before = first.copy()
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0
    again = backbone.run(image=pixels)["p2"]
    assert np.shares_memory(first, again)
    np.testing.assert_array_equal(again, before)


def test_outputs_outlive_the_stage():
    stage = make_stage("backbone")
    view = stage.run(image=image(1, 32, 32, 3))["p2"]
    before = view.copy()
    del stage
    np.testing.assert_array_equal(view, before)


def test_input_written_in_place(backbone):
    pixels = image(1, 32, 32, 3)
    expected = backbone.run(image=pixels)["p2"].copy()
    other = make_stage("backbone")
    other.resize({"image": (1, 32, 32, 3)})
    other.input("image")[...] = pixels
    np.testing.assert_array_equal(other.run()["p2"], expected)


def test_batches_equal_single_rois(head):
    rois = image(5, 7, 7, 8)
    together = head.run(rois=rois)["logits"].copy()
    one_by_one = [head.run(rois=rois[n : n + 1])["logits"].copy() for n in range(5)]
    np.testing.assert_array_equal(together, np.concatenate(one_by_one))


def test_resizing_only_when_the_shape_changes(head, monkeypatch):
    calls = []
    allocate = head._interpreter.allocate_tensors
    monkeypatch.setattr(
        head._interpreter, "allocate_tensors", lambda: (calls.append(1), allocate())
    )
    for count in (3, 3, 3, 4):
        head.run(rois=image(count, 7, 7, 8))
    assert len(calls) == 2


def test_strided_arrays(head):
    rois = image(4, 7, 7, 16)[..., ::2]
    np.testing.assert_array_equal(
        head.run(rois=rois)["logits"].copy(),
        make_stage("head").run(rois=np.ascontiguousarray(rois))["logits"],
    )


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"rois": image(0, 7, 7, 8)}, r"\(0, 7, 7, 8\).*at least 1"),
        ({"rois": image(2, 7, 7, 9)}, r"\(any, 7, 7, 8\)"),
        ({"rois": image(2, 7, 8)}, r"\(any, 7, 7, 8\)"),
        ({"rois": np.zeros((2, 7, 7, 8), np.float32)}, "float32, not int8"),
        ({"rois": [[1]]}, "list, not int8"),
        ({"boxes": image(2, 7, 7, 8)}, "no tensor 'boxes'"),
    ],
)
def test_bad_arrays(head, arrays, words):
    with pytest.raises(InputError, match=words):
        head.run(**arrays)
    assert head.run(rois=image(2, 7, 7, 8))["logits"].shape == (2, 7, 7, 4)


def test_quantization(backbone):
    assert backbone.quantization("image") == (0.0078125, 0)
    scale, zero_point = backbone.quantization("p2")
    assert scale == pytest.approx(0.0119093, rel=1e-5)
    assert zero_point == -128
    with pytest.raises(InputError, match="no tensor 'p9'"):
        backbone.quantization("p9")


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_bad_threads(threads):
    with pytest.raises(InputError, match="positive integer"):
        make_stage("head", threads)


# ---- XNNPACK


def test_partitions_and_operators_outside(backbone, head):
    if not load_runtime().int8_delegate:
        pytest.skip("this runtime has no XNNPACK for int8")
    assert (backbone.delegated, backbone.operators_outside) == (1, [])
    assert (head.delegated, head.operators_outside) == (1, [])
    stray = make_stage("outside")
    assert stray.delegated == 1
    assert stray.operators_outside == ["AVERAGE_POOL_2D"]
    stray.run(rois=image(3, 7, 7, 8))
    assert stray.operators_outside == ["AVERAGE_POOL_2D"]


@pytest.mark.parametrize(
    ("int8_delegate", "words"),
    [
        (False, "slow-runtime runs int8 without XNNPACK, many times slower"),
        (True, "no part of the int8 stage head.*edgemask-convert verify"),
    ],
)
def test_warning_once_without_xnnpack(monkeypatch, int8_delegate, words):
    module = pytest.importorskip("ai_edge_litert.interpreter")
    slow = functools.partial(
        module.Interpreter,
        experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    info = runtime.RuntimeInfo("slow-runtime", "1", slow, int8_delegate)
    monkeypatch.setattr(runtime, "load_runtime", lambda: info)
    runtime._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match=words):
        assert make_stage("head").delegated == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_stage("head").operators_outside == ["CONV_2D"]


# ---- bad files


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "head"),
        (b"x" * 3000, "head"),
        ((DATA / "head.tflite").read_bytes()[:600], "head"),
        ((DATA / "unknown_op.tflite").read_bytes(), "Betainc"),
    ],
    ids=["empty", "garbage", "truncated", "unknown operator"],
)
def test_file_that_does_not_load(content, words):
    with pytest.raises(ModelError, match=words) as caught:
        Stage(content, stage_spec("head"), 1)
    assert "stage head does not load" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tensor_that_is_not_in_the_file():
    spec = copy.deepcopy(stage_spec("head"))
    spec["outputs"]["logits"]["tensor"] = "nothing"
    with pytest.raises(ModelError, match=r"no tensor 'nothing' for logits, only \['Identity'\]"):
        make_stage("head", outputs=spec["outputs"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [None, 7, 7, 9]),
        ("shape", [None, 7, 7]),
        ("dtype", "float32"),
        ("scale", 0.5),
        ("zero_point", 0),
    ],
)
def test_manifest_that_contradicts_the_file(key, value):
    inputs = copy.deepcopy(stage_spec("head")["inputs"])
    inputs["rois"][key] = value
    with pytest.raises(ModelError, match="rois is int8"):
        make_stage("head", inputs=inputs)


def test_failure_while_running(head, monkeypatch):
    def invoke():
        raise RuntimeError("Node number 3 failed\nto invoke")

    monkeypatch.setattr(head._interpreter, "invoke", invoke)
    with pytest.raises(ModelError, match=r"stage head failed at .* Node number 3 failed;"):
        head.run(rois=image(1, 7, 7, 8))


def test_stage_is_named_after_its_file_or_as_told():
    assert make_stage("head").name == "head"
    content = (DATA / "head.tflite").read_bytes()
    assert Stage(content, stage_spec("head"), name="box_head").name == "box_head"
