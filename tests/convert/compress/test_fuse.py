"""Dense early blocks that imitate a trunk's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
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


def ramps(height: int, width: int, number: int) -> np.ndarray:
    """A photograph whose red is x, green is y, and blue its number."""
    image = np.full((height, width, 3), 50 * number, np.uint8)
    image[..., 0], image[..., 1] = np.arange(width), np.arange(height)[:, None]
    return image


def test_crops_are_of_any_place_size_and_photograph() -> None:
    """The first is too narrow for most of them; half of the batches are seen in a mirror."""
    photographs = [ramps(200, 50, 1), ramps(120, 200, 2)]
    crops = random_crops(photographs, 64, 1)
    seen = [next(crops)[0] * 128 + 128 for _ in range(300)]
    numbers = np.array([round(float(crop[..., 2].mean()) / 50) for crop in seen])
    assert 100 < (numbers == 1).sum() < 200
    across = np.array([crop[:, 48, 0].mean() - crop[:, 16, 0].mean() for crop in seen]) / 32
    down = np.array([crop[48, :, 1].mean() - crop[16, :, 1].mean() for crop in seen]) / 32
    assert 100 < (across < 0).sum() < 200
    assert down.min() > 0
    np.testing.assert_allclose(np.abs(across), down, atol=0.05)  # squares
    wide = down[numbers == 2]
    assert 0.58 < wide.min() < 0.65 < 1.3 < wide.max() < 1.42
    assert abs(np.median(np.log(wide))) < math.log(1.15)
    assert down[numbers == 1].max() < 0.8  # 50 pixels at most
    left = np.array([crop[..., 0].min() for crop in seen])[numbers == 2]
    top = np.array([crop[..., 1].min() for crop in seen])[numbers == 2]
    assert left.min() < 10 < 100 < left.max()
    assert top.min() < 10 < 50 < top.max()


def test_errors_are_squared_and_over_the_variance(tiny_model: Any) -> None:
    """The first step learns nothing yet, so its errors are those of the network as it is."""
    target, told = fused(), []
    copy_weights(tiny_model, target)
    crops = next(random_crops(photographs(), 64, 2))
    layers = ("1_project", "2_add", "3_project")
    ours, theirs = (
        keras.Model(
            m.first_stage.input, [m.first_stage.get_layer(f"{k}_{n}").output for n in layers]
        )
        for m, k in ((target, "fused"), (tiny_model, "block"))
    )
    expected = []
    for own, wanted in zip(ours(crops), theirs(crops), strict=True):
        wanted = np.asarray(wanted)
        expected.append(np.square(own - wanted).sum() / wanted.size / (wanted.var() + 1e-3))
    found = fit_front(tiny_model, target, iter([crops]), 1, say=lambda *now: told.append(now))
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert told == [(1, found)]


def test_what_the_rpn_says_of_the_pyramid_is_learnt_too(tiny_model: Any) -> None:
    """Here the pyramid is the same already, and only the logits are too high."""
    target = build_model(tiny_model.config)
    copy_weights(tiny_model, target)
    bias = target.first_stage.get_layer("rpn_logits").bias
    bias.assign(np.asarray(bias) + 2)
    kernel = target.first_stage.get_layer("block_13_expand").kernel
    before = np.asarray(kernel).copy()
    errors = fit_trunk(tiny_model, target, random_crops(photographs(), 64, 2), 3)
    assert errors[4] > 0.1
    assert np.abs(np.asarray(kernel) - before).max() > 0


def test_an_error_that_is_not_finite(tiny_model: Any) -> None:
    target = fused()
    bias = target.first_stage.get_layer("fused_3_project").bias
    bias.assign(np.full(bias.shape, np.nan, np.float32))
    with pytest.raises(FuseError, match="not finite at step 0: lower the learning rate"):
        fit_front(tiny_model, target, random_crops(photographs(), 64, 2), 2)


def test_early_blocks_of_another_width_are_refused(tiny_model: Any) -> None:
    other = fused(changed(FUSED, backbone__alpha=0.75))
    with pytest.raises(FuseError, match="early blocks end with different numbers of channels"):
        fit_front(tiny_model, other, random_crops(photographs(), 64, 2), 1)


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
