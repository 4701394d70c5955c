"""Training some stages on top of others that stay as they are."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.checkpoint import CheckpointError, export_model
from edgemask_convert.config import from_dict
from edgemask_convert.training.trainer import Trainer

from ..conftest import CLASSES, TINY, TINY_POSE, make_batch

HEADER = {"classes": CLASSES}


@pytest.mark.usefixtures("eager")
def test_stages_left_as_they_are_keep_every_bit(tmp_path: Path) -> None:
    """A keypoint head is trained on a finished network, whose masks must not change."""
    finished = tmp_path / "finished.npz"
    keras.utils.set_random_seed(8)
    export_model(finished, build_model(from_dict(TINY).model), HEADER)
    config = from_dict({**TINY_POSE, "train": {**TINY_POSE["train"], "only": ["keypoint_head"]}})
    trainer = Trainer(build_model(config.model), config, total_steps=4)
    fresh = trainer.start_from(finished)
    assert fresh[0] == "keypoint_stem"
    before = {name: np.asarray(weight) for name, weight in trainer.named.items()}
    found = trainer.train_batch(make_batch())
    assert set(found) == {"keypoint", "total", "grad_norm"}
    trainer.train_batch(make_batch())
    with trainer.averaged():
        averaged = {name: np.asarray(weight) for name, weight in trainer.named.items()}
    moved = set()
    for name, value in before.items():
        now = np.asarray(trainer.named[name])
        if name.startswith("keypoint_head/"):
            moved |= {name} if (now != value).any() and (averaged[name] != value).any() else set()
        else:  # BatchNorm's statistics too
            np.testing.assert_array_equal(now, value, err_msg=name)
            np.testing.assert_array_equal(averaged[name], value, err_msg=name)
    assert "keypoint_head/keypoint_stem/kernel" in moved
    assert "keypoint_head/keypoint_stem_bn/moving_mean" in moved


def test_fresh_layers_must_be_trained(tmp_path: Path) -> None:
    finished = tmp_path / "finished.npz"
    export_model(finished, build_model(from_dict(TINY).model), HEADER)
    config = from_dict({**TINY_POSE, "train": {**TINY_POSE["train"], "only": ["mask_head"]}})
    trainer = Trainer(build_model(config.model), config, total_steps=4)
    with pytest.raises(CheckpointError, match=r"keypoint_stem.*add their stages to train\.only"):
        trainer.start_from(finished)
