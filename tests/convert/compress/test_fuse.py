"""Dense early blocks that imitate a trunk's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgemask_convert.arch import build_model
from edgemask_convert.arch.backbone import freeze, trunk_layers
from edgemask_convert.checkpoint import export_model, load_model
from edgemask_convert.cli import main
from edgemask_convert.compress.fuse import (
    FuseError,
    copy_weights,
    fit_front,
    fit_trunk,
    load_small,
    random_crops,
)
from edgemask_convert.config import ConfigError, from_dict
from PIL import Image

from ..conftest import CLASSES, TINY, changed

FUSED = changed(TINY, backbone__fused=[16, 8, 16], backbone__stem=8)
ONE = changed(FUSED, backbone__fused=[16])


def photographs() -> list[np.ndarray]:
    random = np.random.default_rng(2)
    coarse = random.integers(0, 256, (3, 6, 8, 3), np.uint8)
    return [image.repeat(16, 0).repeat(16, 1) for image in coarse]


def test_only_large_photographs_are_shrunk(tmp_path: Path) -> None:
    rgb = photographs()[0]  # 96x128
    Image.fromarray(rgb).save(tmp_path / "a.png")
    for side in (96, 200):
        np.testing.assert_array_equal(load_small(tmp_path / "a.png", side), rgb)
    assert load_small(tmp_path / "a.png", 48).shape == (48, 64, 3)


def fused(values: dict[str, Any] = FUSED) -> Any:
    return build_model(from_dict(values).model)


@pytest.mark.parametrize("values", [FUSED, ONE])
def test_maps_have_the_sizes_of_the_trunk_they_replace(tiny_model: Any, values: Any) -> None:
    image = np.zeros((1, 64, 96, 3), np.float32)
    wanted, found = tiny_model.first_stage(image), fused(values).first_stage(image)
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in wanted.items()}


def test_a_second_block_of_no_width_is_left_out() -> None:
    names = {lyr.name for lyr in trunk_layers(fused(changed(FUSED, backbone__fused=[16, 0, 16]))
                                              .first_stage)}  # fmt: skip
    assert "fused_1_expand" in names
    assert not any(name.startswith(("fused_2", "block_3_", "expanded_conv")) for name in names)


def test_one_width_leaves_blocks_2_and_3() -> None:
    names = [layer.name for layer in trunk_layers(fused(ONE).first_stage)]
    assert names[:4] == ["Conv1", "fused_1_expand", "fused_1_project", "block_2_expand"]


def test_frozen_blocks_count_fused_ones() -> None:
    model = fused()
    freeze(model.first_stage, 2)
    trained = [lyr.name for lyr in trunk_layers(model.first_stage) if lyr.trainable]
    assert trained[0] == "fused_3_expand"
    assert "Conv1" not in trained


@pytest.mark.parametrize("widths", [[8, 8], [0, 8, 8], [8, 8, 0]])
def test_widths_that_make_no_network_are_refused(widths: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"backbone\.fused"):
        from_dict(changed(TINY, backbone__fused=widths))


def test_all_but_the_early_blocks_is_copied(tiny_model: Any) -> None:
    target = fused()
    fresh = copy_weights(tiny_model, target)
    assert set(fresh) == {"backbone/Conv1"} | {
        f"backbone/fused_{i}_{part}" for i in (1, 2, 3) for part in ("expand", "project")
    }
    name = "backbone/block_5_expand/kernel"
    np.testing.assert_array_equal(target.named_weights()[name], tiny_model.named_weights()[name])


@pytest.mark.parametrize(
    ("values", "fitted"),
    [(FUSED, ("Conv1", "fused_")), (ONE, ("Conv1", "fused_", "block_2_", "block_3_"))],
)
def test_fitting_comes_closer_and_changes_nothing_else(
    tiny_model: Any, values: Any, fitted: tuple[str, ...]
) -> None:
    target = fused(values)
    copy_weights(tiny_model, target)
    before = {k: np.asarray(v).copy() for k, v in target.named_weights().items()}
    told: list[list[float]] = []
    errors = fit_front(
        tiny_model, target, random_crops(photographs(), 64, 4), 120,
        say=lambda step, values: told.append(values),
    )  # fmt: skip
    assert errors[2] < 0.6 * told[0][2]
    for name, weight in target.named_weights().items():
        early = name.split("/")[1].startswith(fitted)
        assert early != np.array_equal(before[name], np.asarray(weight)), name


def test_the_trunk_learns_to_lead_to_the_same_pyramid(tiny_model: Any) -> None:
    target = fused()
    copy_weights(tiny_model, target)
    before = {k: np.asarray(v).copy() for k, v in target.named_weights().items()}
    told: list[list[float]] = []
    errors = fit_trunk(
        tiny_model, target, random_crops(photographs(), 64, 4), 100, 2e-3,
        say=lambda step, values: told.append(values),
    )  # fmt: skip
    assert len(errors) == 4 + 2
    assert sum(errors) < 0.8 * sum(told[0])
    trunk = {layer.name for layer in trunk_layers(target.first_stage)}
    for name, weight in target.named_weights().items():
        if name.split("/")[1] not in trunk:
            np.testing.assert_array_equal(before[name], weight, err_msg=name)


def test_another_pyramid_is_refused(tiny_model: Any) -> None:
    wider = fused(changed(FUSED, neck__channels=24))
    with pytest.raises(FuseError, match="pyramids differ"):
        fit_trunk(tiny_model, wider, random_crops(photographs(), 64, 2), 1)


def test_a_fused_network_can_teach_another(tiny_model: Any) -> None:
    teacher, target = fused(), fused(changed(FUSED, backbone__fused=[8, 0, 8]))
    errors = fit_front(teacher, target, random_crops(photographs(), 64, 2), 3)
    assert np.isfinite(errors).all()


def test_a_network_without_fused_blocks_is_refused(tiny_model: Any) -> None:
    with pytest.raises(FuseError, match="fused is empty"):
        fit_front(tiny_model, tiny_model, random_crops(photographs(), 64, 2), 1)


def test_crops_are_normalised_and_repeatable() -> None:
    first, again = (next(random_crops(photographs(), 32, 3, seed=4)) for _ in range(2))
    assert first.shape == (3, 32, 32, 3)
    assert first.dtype == np.float32
    assert -1 <= first.min() < first.max() < 1
    np.testing.assert_array_equal(first, again)


CONFIG = """
[model]
name = "tiny"
classes = [1, 2]
short_side = 64
backbone = {alpha = 0.35, last_block = 13, frozen_blocks = 1, stem = 8, fused = [16, 8, 16]}
neck = {channels = 16}
rpn = {convs = 1, pre_nms = 60, post_nms = 12}
box_head = {width = 16}
mask_head = {blocks = 1, up_channels = 8}
"""


def test_from_the_command_line(
    tiny_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide, out = tmp_path / "wide.npz", tmp_path / "start.npz"
    header = {"config": from_dict(TINY).to_dict(), "classes": CLASSES}
    export_model(wide, tiny_model, header)
    (tmp_path / "c.toml").write_text(CONFIG)
    for index, pixels in enumerate(photographs()):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    command = ["fuse", "--checkpoint", wide, "--config", tmp_path / "c.toml", "--images", tmp_path]
    command += ["--batch", "2", "--crop", "64", "--out", out]
    arguments = [str(part) for part in command]
    assert main([*arguments, "--steps", "2", "--trunk-steps", "1"]) == 0
    text = capsys.readouterr().out
    assert "fused_3_project" in text
    assert "early blocks" in text
    assert "trunk" in text
    made, made_header = load_model(out)
    assert made.config.backbone.fused == [16, 8, 16]
    assert made_header["classes"] == CLASSES
    assert main([*arguments, "--crop", "50"]) == 1
    assert "multiple of 32" in capsys.readouterr().err
