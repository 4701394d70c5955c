from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
from edgemask_convert.config import Config, ConfigError, from_dict, load_config

CONFIGS = Path(__file__).resolve().parents[2] / "convert" / "configs"


def test_every_weight_of_a_loss_has_a_range() -> None:
    """One that is not a number would only be seen in the first step, as a loss that is none."""
    names = [
        f"{section}.{field.name}"
        for section in ("train", "distill")
        for field in dataclasses.fields(getattr(Config(), section))
        if field.name.startswith("weight_")
    ]
    for name in names:
        assert load_config(None, [f"{name}=0"])
        with pytest.raises(ConfigError, match=f"{name} must be"):
            load_config(None, [f"{name}=nan"])


def test_defaults() -> None:
    assert load_config(None) == Config()
    assert from_dict({}) == Config()


def test_dict_round_trip() -> None:
    config = load_config(None, ["model.neck.channels=64", "model.classes=[3, 1]"])
    assert from_dict(config.to_dict()) == config
    assert config.model.neck.channels == 64
    assert config.model.classes == [3, 1]


def test_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[model]\nname = "lite"\n[train]\nepochs = 3\nseed = 5\n')
    config = load_config(path, ["train.seed=6", "train.epochs=2", "model.name=small"])
    assert config.model.name == "small"  # text needs no quotes
    assert config.train.seed == 6
    assert config.train.epochs == 2.0  # an integer where a float is due
    assert isinstance(config.train.epochs, float)


def test_integers_in_lists_of_floats() -> None:
    config = load_config(None, ["model.mask_head.level_thresholds=[64, 224]"])
    assert config.model.mask_head.level_thresholds == [64.0, 224.0]
    assert all(type(v) is float for v in config.model.mask_head.level_thresholds)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_configs_load(path: Path) -> None:
    config = load_config(path)
    assert config.model.name == tomllib.loads(path.read_text())["model"]["name"]


def test_rounding_needs_the_relu6_of_our_own_networks() -> None:
    with pytest.raises(ConfigError, match="quantization_aware is only for"):
        load_config(CONFIGS / "coco80.toml", ["train.quantization_aware=true"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.learning_rte=1",
            "unknown key 'train.learning_rte'; did you mean 'train.learning_rate'",
        ),
        ("train.zzz=1", "unknown key 'train.zzz'; known: batch_size"),
        ("trian.epochs=1", "unknown key 'trian'; did you mean 'train'"),
        (
            "model.backbone.alpah=1",
            "unknown key 'model.backbone.alpah'; did you mean 'model.backbone.alpha'",
        ),
        ("train.batch_size=2.5", "train.batch_size must be int, found 2.5"),
        ("train.batch_size=true", "train.batch_size must be int, found True"),
        ("train.clip_norm=0", "train.clip_norm must be above 0"),
        ("train.learning_rate=-1", "train.learning_rate must be above 0, at most 1"),
        ("train.learning_rate=nan", "train.learning_rate must be above 0"),
        ("train.seed=-1", "train.seed must be 0 to 4294967295"),
        ("train.workers=0", "train.workers must be 1 to 256"),
        ("train.eval_images=-5", "train.eval_images must be 1 or more"),
        ("augment.min_short_side=0", "augment.min_short_side must be 32 to 4096"),
        ("augment.min_short_side=600", "must be at most augment.max_short_side"),
        ("augment.flip=2", "augment.flip must be 0 to 1"),
        ("model.short_side=8000", "model.short_side must be 32 to 4096"),
        ("model.mask_head.threshold=2", "model.mask_head.threshold must be 0.01 to 0.99"),
        ("model.rpn.post_nms=0", "model.rpn.post_nms must be 1 to 10000"),
        ("model.classes=[5000000000]", "model.classes must be ids from 0 to 2147483647"),
        ("train.epochs=many", "train.epochs must be float, found 'many'"),
        ("train.epochs=true", "train.epochs must be float, found True"),
        ("model.classes=1", "model.classes must be list, found 1"),
        ('model.classes=["person"]', "model.classes must be a list of int, found 'person' in it"),
        ("model.classes=[1.0]", "model.classes must be a list of int, found 1.0 in it"),
        ("model.box_head.features=[3]", "features must be a list of str, found 3 in it"),
        ("model.neck=3", "model.neck must be a table, found 3"),
        ("train.epochs", "override 'train.epochs' is not of the form section.key=value"),
        ("augment.crop=300", "augment.crop must be a multiple of 32"),
        ("augment.copy_paste=30", "augment.copy_paste must be 0 to 1"),
        ("augment.rotate=-15", "augment.rotate must be 0 to 180 degrees"),
        ("augment.crop=0", "augment.crop must be a multiple of 32"),
        ("model.classes=[]", "model.classes must be distinct ids, at least one"),
        ("model.classes=[1, 1]", "model.classes must be distinct ids, at least one"),
        ("model.backbone.last_block=12", "last_block must be 13 to 16"),
        ("model.resize=nearest", "model.resize must be averaged or bilinear"),
        ("model.rpn.score_threshold=1.0", "model.rpn.score_threshold must be 0 to 0.99"),
        ("model.mask_head.soft_nms_threshold=-0.1", "soft_nms_threshold must be 0 to 1"),
        ("model.mask_head.soft_nms_threshold=0.995", "not between 0.99 and 1"),
        ("train.batch_size=0", "train.batch_size must be 1 or more"),
        ("train.mask_rois=65", "mask_rois must be at most train.rois_per_image"),
        ("train.positive_rois=65", "positive_rois must be at most train.rois_per_image"),
        ("train.proposals=20", "rois_per_image must be at most train.proposals"),
        ('model.mask_head.features=["p2", "p6", "p4"]', "features must be some of p2, p3, p4, p5"),
        ("model.box_head.level_thresholds=[64]", "level_thresholds must have one entry fewer"),
        ("model.mask_head.features=['p3', 'p3', 'p4']", "features must not have a name twice"),
        ("model.mask_head.level_thresholds=[224, 112]", "must be in ascending order"),
        ("train.only=[1]", "train.only must be a list of str, found 1 in it"),
        ('train.only=["mask"]', "train.only must name some of backbone, box_head, mask_head"),
        ('train.only=["box_head", "box_head"]', "none twice"),
        ('train.only=["keypoint_head"]', "model.keypoint_head.blocks is 0"),
        ("model.keypoint_head.blocks=-1", "model.keypoint_head.blocks must be 0 or more"),
        ("model.keypoint_head.box_scale=0.9", "box_scale must be 1 to 4"),
        ("train.keypoint_sigma=3", "train.keypoint_sigma must be 0 to 2 cells"),
        ("train.epochs=0", "train.epochs must be above 0"),
        ("train.epochs=nan", "train.epochs must be above 0"),
        ("train.epochs=inf", "train.epochs must be above 0, at most 1000000"),
        ("train.mask_rois=0", "train.mask_rois must be 1 or more"),
        ("train.positive_rois=0", "train.positive_rois must be 1 or more"),
        ("train.keypoint_rois=0", "train.keypoint_rois must be 1 or more"),
        ("train.weight_mask=nan", "train.weight_mask must be 0 to 1000000"),
        ("train.weight_class=-1", "train.weight_class must be 0 to 1000000"),
        ("distill.weight_hint=inf", "distill.weight_hint must be 0 to 1000000"),
        ("train.backbone_multiplier=-0.1", "train.backbone_multiplier must be 0 to 1000"),
        ("train.final_lr_fraction=1.5", "train.final_lr_fraction must be 0 to 1"),
        ("model.backbone.alpha=0", "model.backbone.alpha must be above 0, at most 4"),
        ("train.eval_epochs=0", "train.eval_epochs must be above 0; to measure nothing, leave out"),
        ('model.name="my model"', "model.name must be letters, digits"),
        ('model.name=""', "model.name must be letters, digits"),
        ('model.name="../people"', "model.name must be letters, digits"),
        ("model.box_head.box_weights=[1, 1, 1]", "box_weights must be four positive numbers"),
    ],
)
def test_refuses(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert message in str(caught.value)


def test_refuses_override_of_a_value_as_section(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[train]\nepochs = 3\n")
    with pytest.raises(ConfigError, match="epochs is a value, not a section"):
        load_config(path, ["train.epochs.x=1"])


def test_refuses_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read config .*none\.toml: No such file"):
        load_config(tmp_path / "none.toml")
    path = tmp_path / "c.toml"
    path.write_text("[train\n")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_config(path)


def test_keypoints_of_a_class_that_is_not_learnt() -> None:
    overrides = ["model.keypoint_head.blocks=2", "model.classes=[18]"]
    with pytest.raises(ConfigError, match=r"class_id must be one of model\.classes"):
        load_config(None, overrides)
    assert load_config(None, [*overrides, "model.keypoint_head.class_id=18"])


def test_keypoint_rois_bind_only_a_network_with_keypoints() -> None:
    overrides = ["train.keypoint_rois=65"]
    assert load_config(None, overrides)
    with pytest.raises(ConfigError, match=r"at most train\.rois_per_image"):
        load_config(None, [*overrides, "model.keypoint_head.blocks=2"])


def test_the_lite_pack_can_learn_from_the_people_pack() -> None:
    """Same anchors, classes and mask size, as distillation needs, and fewer channels."""
    lite, people = (load_config(CONFIGS / f"{n}.toml").model for n in ("people-lite", "people"))
    assert lite.classes == people.classes
    assert lite.rpn.anchor_scale == people.rpn.anchor_scale
    assert lite.mask_head.output_size == people.mask_head.output_size
    assert lite.neck.channels < people.neck.channels


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.ema_decay=1.5"], "train.ema_decay must be 0 to 1"),
        (["train.warmup_steps=-1"], "train.warmup_steps must be 0 or more"),
        (["distill.zoom=2", "model.backbone.kind=maskrcnn2go"], "distill.zoom is only for"),
        (["model.mask_head.context.channels=8", "model.mask_head.output_size=13"], "an even size"),
        (["model.mask_head.context.channels=8", "model.mask_head.blocks=0"], "1 or more blocks"),
    ],
)
def test_refuses_what_does_not_go_together(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides)


def test_defaults_that_every_run_relies_on() -> None:
    """A trunk that is trained as fast as the rest forgets what it knew."""
    train = from_dict({}).train
    assert train.backbone_multiplier == 0.15
    assert train.ema_decay == 0.999
