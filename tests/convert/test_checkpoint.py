from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.checkpoint import (
    CheckpointError,
    assign_weights,
    export_model,
    load_arrays,
    load_model,
    save_arrays,
)

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
