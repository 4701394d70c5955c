"""What is said of files that are no checkpoints, and what older checkpoints may lack."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.checkpoint import (
    CheckpointError,
    assign_weights,
    check_same_run,
    load_arrays,
    load_header,
    load_model,
    save_arrays,
)
from edgemask_convert.config import from_dict

from .conftest import TINY

LOADERS = [load_arrays, load_header]
DATA = {"sha256": "ab", "images": 40}


@pytest.mark.parametrize("load", LOADERS)
def test_one_array_of_numpy(tmp_path: Path, load: Callable[[Path], Any]) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    message = r"x\.npy is not an edgemask checkpoint \(it is damaged, or something else\): give"
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "x.npy")


@pytest.mark.parametrize("load", LOADERS)
def test_an_archive_of_something_else_is_called_no_pack(
    tmp_path: Path, load: Callable[[Path], Any]
) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("one.txt", "hello")
    with pytest.raises(CheckpointError, match=r"\(it is damaged, or something else\)"):
        load(tmp_path / "photos.zip")


@pytest.mark.parametrize("load", LOADERS)
def test_the_system_says_why_a_file_cannot_be_read(
    tmp_path: Path, load: Callable[[Path], Any]
) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint \(Is a directory\): give a model\.npz"):
        load(tmp_path)


@pytest.mark.parametrize("load", LOADERS)
def test_a_path_where_nothing_is(tmp_path: Path, load: Callable[[Path], Any]) -> None:
    with pytest.raises(CheckpointError, match=r"none\.npz .*[Nn]o such file") as caught:
        load(tmp_path / "none.npz")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("load", LOADERS)
def test_damage_of_a_byte_is_told_or_changes_nothing(
    tmp_path: Path, load: Callable[[Path], Any]
) -> None:
    path = tmp_path / "x.npz"
    save_arrays(path, {}, {"note": "a header of some length, so that it is compressed"})
    wanted = load(path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (entry,) = archive.infolist()
    end = whole.index(b"PK\x01\x02")
    told = []
    for index in range(end - entry.compress_size, end):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 255]) + whole[index + 1 :])
        try:
            assert load(path) == wanted  # the last bits only end the data
        except CheckpointError as error:
            told.append("it is damaged, or something else" in str(error))
    assert all(told)
    assert len(told) >= entry.compress_size - 2


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(("offset", "value"), [(10, 9), (8, 1), (8, 32), (6, 255)])
def test_damage_of_the_directory(
    tmp_path: Path, load: Callable[[Path], Any], offset: int, value: int
) -> None:
    """A compression, an encryption, patches and a version that zipfile does not know."""
    path = tmp_path / "x.npz"
    save_arrays(path, {}, {"note": "a header"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + offset] = value
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"x\.npz is not .*damaged, or something else"):
        load(path)


def test_the_path_is_to_be_checked(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such file; check the path"):
        load_model(tmp_path / "none.npz")


def test_arrays_are_compressed(tmp_path: Path) -> None:
    save_arrays(tmp_path / "x.npz", {"a": np.zeros(100_000, np.float32)}, {})
    assert (tmp_path / "x.npz").stat().st_size < 10_000


def test_a_run_is_loaded_with_its_averaged_weights(tiny_model: Any, tmp_path: Path) -> None:
    arrays = {
        prefix + name: np.full(weight.shape, value, np.float32)
        for prefix, value in (("model/", 9), ("ema/", 3), ("optimizer0/", 7))
        for name, weight in tiny_model.named_weights().items()
    }
    save_arrays(tmp_path / "x.npz", arrays, {"config": from_dict(TINY).to_dict(), "step": 5})
    model, header = load_model(tmp_path / "x.npz")
    assert header["step"] == 5
    for name, weight in model.named_weights().items():
        np.testing.assert_array_equal(weight, np.full(weight.shape, 3), err_msg=name)


def test_a_layer_of_another_shape_starts_fresh_as_a_whole(tiny_pose: Any) -> None:
    """Its offsets would fit, but belong to other outputs."""
    layer = tiny_pose.box_head.get_layer("box_logits")
    before = [np.asarray(layer.kernel), np.asarray(layer.bias)]
    arrays = {name: np.asarray(weight) for name, weight in tiny_pose.named_weights().items()}
    arrays["box_head/box_logits/kernel"] = np.ones((3, before[0].shape[1]), np.float32)
    arrays["box_head/box_logits/bias"] = before[1] + 1
    fresh = assign_weights(tiny_pose, arrays, "x.npz", ("box_head/box_logits",))
    after = [np.asarray(layer.kernel), np.asarray(layer.bias)]
    assert fresh == ["box_logits"]
    for found, wanted in zip(after, before, strict=True):
        np.testing.assert_array_equal(found, wanted)


# ---- going on with a run


@pytest.mark.parametrize(
    "change",
    [{"workers": 9}, {"save_minutes": 1.0}, {"eval_epochs": 7.0}, {"eval_images": 3}],
)
def test_what_changes_nothing_that_is_learnt_may_change(change: dict[str, Any]) -> None:
    saved = {"config": from_dict({}).to_dict(), "data": DATA}
    check_same_run(saved, from_dict({"train": change}), DATA, "c.npz")


@pytest.mark.parametrize("change", [{"batch_size": 3}, {"learning_rate": 0.5}, {"epochs": 2.0}])
def test_what_is_learnt_may_not_change(change: dict[str, Any]) -> None:
    (key,) = change
    saved = {"config": from_dict({}).to_dict(), "data": DATA}
    with pytest.raises(CheckpointError, match=rf"changed: train\.{key} was .*, is {change[key]}\."):
        check_same_run(saved, from_dict({"train": change}), DATA, "c.npz")


@pytest.mark.parametrize("lacking", ["sha256", "images", "teacher", "first_weights"])
def test_what_an_older_checkpoint_did_not_record_is_not_asked(lacking: str) -> None:
    data = DATA | {"teacher": "cd", "first_weights": "ef"}
    recorded = {key: value for key, value in data.items() if key != lacking}
    check_same_run({"config": from_dict({}).to_dict(), "data": recorded}, from_dict({}), data, "c")


def test_a_checkpoint_without_data_goes_on() -> None:
    check_same_run({"config": from_dict({}).to_dict()}, from_dict({}), DATA, "c.npz")


def test_a_run_without_configuration_does_not_go_on() -> None:
    with pytest.raises(CheckpointError, match=r"c\.npz has no model configuration"):
        check_same_run({"step": 3, "data": DATA}, from_dict({}), DATA, "c.npz")
