"""Which checkpoints have a mean, of which of their weights, and what it says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.checkpoint import CheckpointError, save_arrays
from edgemask_convert.config import from_dict
from edgemask_convert.training.average import average

from ..conftest import CLASSES, TINY


def write(path: Path, model: Any, values: dict[str, float], **header: Any) -> Path:
    """Write a checkpoint; every weight of a set (by prefix) has one value."""
    arrays = {
        prefix + name: np.full(weight.shape, value, np.float32)
        for prefix, value in values.items()
        for name, weight in model.named_weights().items()
    }
    save_arrays(
        path,
        arrays,
        {"config": from_dict(TINY).to_dict(), "classes": CLASSES, **header},
    )
    return path


def test_other_names_of_the_classes_are_refused(tiny_model: Any, tmp_path: Path) -> None:
    """The network has the same shapes, but its second output means something else."""
    other = [CLASSES[0], {"id": 2, "name": "square"}]
    paths = [
        write(tmp_path / "a.npz", tiny_model, {"": 1}),
        write(tmp_path / "b.npz", tiny_model, {"": 1}, classes=other),
    ]
    with pytest.raises(CheckpointError, match=r"b\.npz is another network than .*a\.npz.*classes"):
        average(paths)


def test_every_checkpoint_is_compared_not_only_the_second(tiny_model: Any, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.npz", tiny_model, {"": 1}) for name in "ab"]
    paths.append(write(tmp_path / "c.npz", tiny_model, {"": 1}, classes=CLASSES[:1]))
    with pytest.raises(CheckpointError, match=r"c\.npz is another network than .*a\.npz"):
        average(paths)


def test_the_averaged_weights_of_runs_are_taken_in_single_precision(
    tiny_model: Any, tmp_path: Path
) -> None:
    paths = [
        write(tmp_path / "a.npz", tiny_model, {"model/": 9, "ema/": 1.0001}),
        write(tmp_path / "b.npz", tiny_model, {"model/": 9, "ema/": 1.0003}),
    ]
    model, _ = average(paths)
    for name, weight in model.named_weights().items():
        np.testing.assert_allclose(weight, 1.0002, rtol=2e-7, err_msg=name)


@pytest.mark.parametrize("third", [[0, 2], [0, 1], None])
def test_header_keeps_what_is_true_of_the_mean(
    tiny_model: Any, tmp_path: Path, third: list[int] | None
) -> None:
    """Not the step and the accuracy of one of the runs, nor channels that another lacks."""
    paths = []
    for index, neck in enumerate(([0, 2], [0, 2], third)):
        folder = tmp_path / str(index)
        folder.mkdir()
        header = {"step": 70 + index, "data": {"sha256": "ab"}, "dev": {"AP": 0.3}}
        if neck:
            header["neck_channels"] = neck
        paths.append(write(folder / "model.npz", tiny_model, {"": index}, **header))
    _, header = average(paths, [1, 2, 5])
    assert header == {
        "config": from_dict(TINY).to_dict(),
        "classes": CLASSES,
        "data": {"sha256": "ab"},
        "step": 0,
        "average": [{"file": "model.npz", "share": share} for share in (0.125, 0.25, 0.625)],
    } | ({"neck_channels": [0, 2]} if third == [0, 2] else {})
