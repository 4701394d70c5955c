from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.checkpoint import (
    CheckpointError,
    assign_weights,
    check_same_run,
    export_model,
    load_arrays,
    load_header,
    load_model,
    save_arrays,
)
from edgemask_convert.config import ConfigError, from_dict

from .conftest import CLASSES

ARRAYS = {"a/b/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(3)}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.npz"
    save_arrays(path, ARRAYS, {"note": "é"})
    arrays, header = load_arrays(path)
    assert header == {"note": "é"}
    assert arrays.keys() == ARRAYS.keys()
    np.testing.assert_array_equal(arrays["a/b/kernel"], ARRAYS["a/b/kernel"])
    assert [p.name for p in path.parent.iterdir()] == ["x.npz"]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npz"
    save_arrays(path, ARRAYS, {"n": 1})

    def full_disk(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_arrays(path, ARRAYS, {"n": 2})
    monkeypatch.undo()
    assert load_arrays(path)[1] == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_a_power_cut_finds_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one is on the disk, whole, before it takes the place of the old one."""
    synced: list[int] = []
    replaced: list[tuple[list[int], int]] = []
    sync, replace = os.fsync, os.replace

    def noted_sync(descriptor: int) -> None:
        sync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    def noted_replace(aside: Path, path: Path) -> None:
        replaced.append((list(synced), aside.stat().st_size))
        replace(aside, path)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    save_arrays(tmp_path / "x.npz", ARRAYS, {})
    ((before, size),) = replaced
    assert before == [size]


@pytest.mark.parametrize("content", ["missing", "text", "empty", "truncated", "broken", "foreign"])
def test_refuses(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.npz"
    if content == "text":
        path.write_text("hello, I am no checkpoint")
    elif content == "empty":
        path.touch()
    elif content == "foreign":
        np.savez(path, kernel=np.zeros(3))
    elif content != "missing":
        save_arrays(path, {"a": np.random.default_rng(0).normal(size=5000)}, {})
        data = bytearray(path.read_bytes())
        if content == "truncated":
            del data[len(data) // 2 :]
        else:
            with zipfile.ZipFile(path) as archive:
                start = archive.getinfo("a.npy").header_offset
            data[start + 200 : start + 400] = bytes(200)
        path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"x\.npz is not an edgemask checkpoint"):
        load_arrays(path)


def test_export_is_half_precision(tiny_model: Any, tiny_config: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    export_model(path, tiny_model, {"config": tiny_config.to_dict(), "classes": CLASSES})
    arrays, _ = load_arrays(path)
    assert {array.dtype.name for array in arrays.values()} == {"float16"}
    model, header = load_model(path)
    assert header["classes"] == CLASSES
    assert model.config == tiny_config.model
    for name, weight in tiny_model.named_weights().items():
        found = np.asarray(model.named_weights()[name])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, weight, rtol=1e-3, atol=1e-6)


def test_settings_that_are_no_weights_can_be_changed(
    tiny_model: Any, tiny_config: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.npz"
    export_model(path, tiny_model, {"config": tiny_config.to_dict(), "classes": CLASSES})
    model, _ = load_model(path, ["model.rpn.score_threshold=0.15", "model.resize=bilinear"])
    assert model.config.rpn.score_threshold == 0.15
    assert model.config.resize == "bilinear"
    assert load_model(path)[0].config == tiny_config.model
    with pytest.raises(CheckpointError, match="has shape"):
        load_model(path, ["model.neck.channels=24"])
    with pytest.raises(ConfigError, match=r"did you mean 'model\.rpn\.score_threshold'"):
        load_model(path, ["model.rpn.score_treshold=0.15"])


def test_model_without_configuration(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save_arrays(path, ARRAYS, {})
    with pytest.raises(CheckpointError, match="has no model configuration"):
        load_model(path)


def test_missing_and_misshapen_weights(tiny_model: Any) -> None:
    arrays = {name: np.asarray(weight) for name, weight in tiny_model.named_weights().items()}
    name = "box_head/box_logits/bias"
    with pytest.raises(CheckpointError, match=rf"x has no weight {name}"):
        assign_weights(tiny_model, {k: v for k, v in arrays.items() if k != name}, "x")
    with pytest.raises(CheckpointError, match=rf"{name} has shape \(3,\), the network \(2,\)"):
        assign_weights(tiny_model, arrays | {name: np.zeros(3)}, "x")
    assign_weights(tiny_model, arrays, "x")


def test_only_a_whole_optional_stage_may_be_missing(tiny_pose: Any, tiny_model: Any) -> None:
    """A network without keypoints fits one that has them, and nothing else may be missing."""
    without = {name: np.asarray(weight) for name, weight in tiny_model.named_weights().items()}
    before = tiny_pose.keypoint_head.get_layer("keypoint_logits").kernel.numpy()
    fresh = assign_weights(tiny_pose, without, "a.npz", ("keypoint_head",))
    assert fresh[0] == "keypoint_stem"
    assert fresh[-1] == "keypoint_logits"
    assert all(layer.startswith("keypoint_") for layer in fresh)
    after = tiny_pose.keypoint_head.get_layer("keypoint_logits").kernel.numpy()
    np.testing.assert_array_equal(after, before)
    with pytest.raises(CheckpointError, match=r"a\.npz has no weight keypoint_head/"):
        assign_weights(tiny_pose, without, "a.npz")
    everything = {name: np.asarray(weight) for name, weight in tiny_pose.named_weights().items()}
    assert assign_weights(tiny_pose, everything, "a.npz", ("keypoint_head",)) == []
    for name in ("keypoint_head/keypoint_logits/kernel", "mask_head/mask_logits/bias"):
        part = {key: value for key, value in everything.items() if key != name}
        with pytest.raises(CheckpointError, match=f"has no weight {name}"):
            assign_weights(tiny_pose, part, "a.npz", ("keypoint_head",))


# ---- going on with a run

DATA = {"sha256": "ab", "images": 40}


def saved_header(**train: Any) -> dict[str, Any]:
    return {"config": from_dict({"train": train}).to_dict(), "data": {"annotations": "a"} | DATA}


def test_the_same_run_goes_on() -> None:
    check_same_run(saved_header(), from_dict({}), DATA, "c.npz")
    # what changes nothing that is learnt: the machine, and how often it measures
    free = from_dict({"train": {"workers": 9, "save_minutes": 1.0, "eval_images": 3}})
    check_same_run(saved_header(), free, DATA, "c.npz")


def test_a_checkpoint_of_an_older_version_goes_on() -> None:
    header = saved_header()
    del header["config"]["train"]["deterministic"]
    check_same_run(header, from_dict({}), DATA, "c.npz")


@pytest.mark.parametrize(
    ("train", "data", "message"),
    [
        ({"seed": 2}, DATA, r"changed: train\.seed was 2, is 1\. Change it back"),
        ({}, DATA | {"sha256": "cd"}, "the annotation file is another one"),
        ({}, DATA | {"images": 39}, "images to train on were 40, are 39"),
        ({"epochs": 3.0, "seed": 2}, DATA, "train.epochs was 3.0, is 20.0; train.seed was 2, is 1"),
    ],
)
def test_a_changed_run_does_not_go_on(
    train: dict[str, Any], data: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        check_same_run(saved_header(**train), from_dict({}), data, "c.npz")
    assert "another --out (--start-from c.npz takes the weights)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("now", [None, "ef"])
def test_a_run_keeps_its_teacher(now: str | None) -> None:
    header = saved_header()
    header["data"] = DATA | {"teacher": "cd"}
    check_same_run(header, from_dict({}), DATA | {"teacher": "cd"}, "c.npz")
    with pytest.raises(CheckpointError, match="--distill names another teacher, or none"):
        check_same_run(header, from_dict({}), DATA | {"teacher": now}, "c.npz")


@pytest.mark.parametrize(("begun", "now"), [("cd", None), ("cd", "ef"), (None, "cd")])
def test_a_run_keeps_its_hint(begun: str | None, now: str | None) -> None:
    header = saved_header()
    header["data"] = DATA | ({"hint": begun} if begun else {})
    check_same_run(header, from_dict({}), DATA | {"hint": begun}, "c.npz")
    with pytest.raises(CheckpointError, match="--hint names another network, or none"):
        check_same_run(header, from_dict({}), DATA | {"hint": now}, "c.npz")


@pytest.mark.parametrize("begun", [None, "cd"])
def test_a_run_keeps_its_first_weights(begun: str | None) -> None:
    header = saved_header()
    header["data"] = DATA | {"first_weights": begun}
    check_same_run(header, from_dict({}), DATA | {"first_weights": begun}, "c.npz")
    with pytest.raises(CheckpointError, match="--start-from or --init names other weights"):
        check_same_run(header, from_dict({}), DATA | {"first_weights": "ef"}, "c.npz")
    check_same_run(saved_header(), from_dict({}), DATA | {"first_weights": "ef"}, "c.npz")  # older


def test_a_pack_is_no_checkpoint(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "people.zip", "w") as archive:
        archive.writestr("model.json", "{}")
    for load in (load_arrays, load_header):
        with pytest.raises(CheckpointError, match=r"checkpoint \(it is a model pack\): give a mod"):
            load(tmp_path / "people.zip")


def test_header_alone(tmp_path: Path) -> None:
    save_arrays(tmp_path / "x.npz", ARRAYS, {"step": 7})
    assert load_header(tmp_path / "x.npz") == {"step": 7}
    (tmp_path / "x.npz").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="is not an edgemask checkpoint"):
        load_header(tmp_path / "x.npz")
