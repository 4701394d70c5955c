"""The mean of checkpoints."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.arch.model import build_model
from edgemask_convert.checkpoint import CheckpointError, export_model, load_arrays
from edgemask_convert.cli import main
from edgemask_convert.config import from_dict
from edgemask_convert.training.average import average

from ..conftest import CLASSES, TINY


def trained(path: Path, value: float, settings: dict[str, Any] = TINY, **header: Any) -> Path:
    """A checkpoint of which every weight has one value."""
    config = from_dict(settings)
    model = build_model(config.model)
    for weight in model.named_weights().values():
        weight.assign(np.full(weight.shape, value, np.float32))
    header |= {"config": config.to_dict(), "classes": CLASSES, "step": 7}
    export_model(path, model, header)
    return path


def test_every_weight_is_the_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = trained(tmp_path / "one.npz", 1), trained(tmp_path / "two.npz", 4)
    out = tmp_path / "mean.npz"
    command = ["average", str(one), str(two), "--shares", "2", "1", "--out", str(out)]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{out}: 0.67 of one.npz, 0.33 of two.npz\n"
    arrays, header = load_arrays(out)
    assert set(arrays) == set(load_arrays(one)[0])
    for name, array in arrays.items():
        np.testing.assert_allclose(array, 2, rtol=1e-3, err_msg=name)
    assert header["classes"] == CLASSES
    assert header["average"][0] == {"file": "one.npz", "share": 0.6667}
    model, _ = average([one, two, two])
    assert all(np.allclose(w, 3) for w in model.named_weights().values())


def test_another_network_is_refused(tmp_path: Path) -> None:
    other = copy.deepcopy(TINY)
    other["model"]["neck"]["channels"] = 24
    paths = [trained(tmp_path / "a.npz", 1), trained(tmp_path / "b.npz", 1, other)]
    with pytest.raises(CheckpointError, match=r"b\.npz is another network than .*a\.npz"):
        average(paths)


def test_what_changes_no_weight_may_differ(tmp_path: Path) -> None:
    other = copy.deepcopy(TINY)
    other["model"] |= {
        "name": "other",
        "resize": "bilinear",
        "rpn": TINY["model"]["rpn"] | {"score_threshold": 0.2},
        "box_head": TINY["model"]["box_head"] | {"nms_threshold": 0.7},
        "mask_head": TINY["model"]["mask_head"] | {"soft_nms_threshold": 0.3},
        "backbone": TINY["model"]["backbone"] | {"frozen_blocks": 0},
    }
    model, header = average([trained(tmp_path / "a.npz", 1), trained(tmp_path / "b.npz", 2, other)])
    assert all(np.allclose(w, 1.5) for w in model.named_weights().values())
    assert header["config"]["model"]["name"] == "other"


@pytest.mark.parametrize(("other", "kept"), [([0, 2], True), ([0, 1], False), (None, False)])
def test_channels_of_the_parent_are_known_if_all_agree(
    tmp_path: Path, other: list[int] | None, kept: bool
) -> None:
    one = trained(tmp_path / "a.npz", 1, neck_channels=[0, 2])
    header = average([one, trained(tmp_path / "b.npz", 2, neck_channels=other)])[1]
    assert header.get("neck_channels") == ([0, 2] if kept else None)


@pytest.mark.parametrize(
    "shares", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]]
)
def test_shares_that_are_wrong(tmp_path: Path, shares: list[float]) -> None:
    with pytest.raises(ValueError, match="give one above 0 for each"):
        average([tmp_path / "a.npz", tmp_path / "b.npz"], shares)


def test_one_checkpoint_has_no_mean(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give two or more"):
        average([tmp_path / "a.npz"])
