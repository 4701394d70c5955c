"""Configuration of a model and of its training: dataclasses read from TOML.

Every key has a default, so a config file holds only what differs. Unknown keys
are refused with the nearest known name, because a misspelt learning rate that
is silently ignored costs hours.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class ConfigError(ValueError):
    """A config file has an unknown key or a value of the wrong type."""


@dataclass
class BackboneConfig:
    """MobileNetV2 trunk (Sandler et al. 2018), BatchNorm folded into the convolutions."""

    alpha: float = 1.0
    last_block: int = 15  # blocks 0..16 exist; 16 costs 60 MMAC and adds little
    frozen_blocks: int = 2  # stem and blocks 0..frozen_blocks are not trained; -1 trains all


@dataclass
class NeckConfig:
    """Light FPN (Lin et al. 2017)."""

    channels: int = 96


@dataclass
class RPNConfig:
    """Region proposal network on P3..P6, one shared head with per-level BatchNorm."""

    convs: int = 2
    anchor_scale: float = 5.0  # anchor side in units of the stride
    anchor_ratios: list[float] = field(default_factory=lambda: [1.0])
    pre_nms: int = 200
    post_nms: int = 50
    nms_threshold: float = 0.7


@dataclass
class BoxHeadConfig:
    """Second stage: RoIAlign → two fully connected layers → class logits and box deltas."""

    output_size: int = 7
    sampling_ratio: int = 2
    features: list[str] = field(default_factory=lambda: ["p3", "p4", "p5"])
    level_thresholds: list[float] = field(default_factory=lambda: [112.0, 224.0])
    width: int = 256
    box_weights: list[float] = field(default_factory=lambda: [10.0, 10.0, 5.0, 5.0])
    nms_threshold: float = 0.5


@dataclass
class MaskHeadConfig:
    """Mask branch: residual separable convolutions at 14x14, depth-to-space to 28x28."""

    output_size: int = 14
    sampling_ratio: int = 2
    features: list[str] = field(default_factory=lambda: ["p2", "p3", "p4"])
    level_thresholds: list[float] = field(default_factory=lambda: [64.0, 224.0])
    blocks: int = 4
    kernel: int = 5
    up_channels: int = 48
    class_agnostic: bool = True
    threshold: float = 0.5


@dataclass
class ModelConfig:
    """Everything that fixes the network's shape."""

    name: str = "people"
    classes: list[int] = field(default_factory=lambda: [1])  # COCO category ids
    short_side: int = 320
    max_aspect: float = 2.0
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    neck: NeckConfig = field(default_factory=NeckConfig)
    rpn: RPNConfig = field(default_factory=RPNConfig)
    box_head: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    mask_head: MaskHeadConfig = field(default_factory=MaskHeadConfig)


@dataclass
class AugmentConfig:
    """Random crops of a random scale; see :mod:`.augment`."""

    crop: int = 320
    min_short_side: int = 224
    max_short_side: int = 512
    aspect_jitter: float = 0.1
    flip: float = 0.5
    color: float = 0.3


@dataclass
class TrainConfig:
    """Optimisation: AdamW, warm-up, one cosine, exponential moving average of the weights."""

    batch_size: int = 8
    epochs: float = 20.0
    learning_rate: float = 1.5e-3
    backbone_multiplier: float = 0.15
    weight_decay: float = 0.02
    warmup_steps: int = 300
    final_lr_fraction: float = 0.01
    clip_norm: float = 10.0
    ema_decay: float = 0.999
    seed: int = 1
    rois_per_image: int = 64
    positive_rois: int = 24
    mask_rois: int = 16
    proposals: int = 100
    weight_rpn_class: float = 1.0
    weight_rpn_box: float = 2.0
    weight_class: float = 1.0
    weight_box: float = 2.0
    weight_mask: float = 2.0
    save_minutes: float = 5.0
    eval_epochs: float = 3.0
    eval_images: int = 100
    workers: int = 2


@dataclass
class Config:
    """A whole experiment: model, augmentation, training."""

    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, JSON-ready; :func:`from_dict` reads it back."""
        return dataclasses.asdict(self)


def _fill(cls: type, values: dict[str, Any], where: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(cls)}
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            raise ConfigError(f"unknown key {where}{key!r}{hint}")
        default = getattr(cls(), key)
        if dataclasses.is_dataclass(default):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}{key} must be a table, found {value!r}")
            made[key] = _fill(type(default), value, f"{where}{key}.")
            continue
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(default):
            raise ConfigError(f"{where}{key} must be {type(default).__name__}, found {value!r}")
        if isinstance(default, list):
            value = _list(value, type(default[0]), f"{where}{key}")
        made[key] = value
    return cls(**made)


def _list(values: list[Any], kind: type, where: str) -> list[Any]:
    if kind is float:
        values = [float(v) if type(v) is int else v for v in values]
    for value in values:
        if type(value) is not kind:
            raise ConfigError(f"{where} must be a list of {kind.__name__}, found {value!r} in it")
    return values


def _check(config: Config) -> None:
    """Refuse what would only fail deep inside the network or after hours."""
    model, train = config.model, config.train
    problems = {
        "augment.crop must be a multiple of 32, at least 32": (
            config.augment.crop % 32 != 0 or config.augment.crop < 32
        ),
        "model.classes must be distinct ids, at least one": (
            not model.classes or len(set(model.classes)) != len(model.classes)
        ),
        "model.backbone.last_block must be 13 to 16": not 13 <= model.backbone.last_block <= 16,
        "train.batch_size must be 1 or more": train.batch_size < 1,
        "train.mask_rois must be at most train.rois_per_image": (
            train.mask_rois > train.rois_per_image
        ),
        "train.rois_per_image must be at most train.proposals": (
            train.rois_per_image > train.proposals
        ),
        "train.positive_rois must be at most train.rois_per_image": (
            train.positive_rois > train.rois_per_image
        ),
    }
    for name, head in (("box_head", model.box_head), ("mask_head", model.mask_head)):
        known = set(head.features) <= {"p2", "p3", "p4", "p5"}
        problems[f"model.{name}.features must be some of p2, p3, p4, p5"] = (
            not head.features or not known
        )
        problems[f"model.{name}.level_thresholds must have one entry fewer than its features"] = (
            len(head.level_thresholds) != len(head.features) - 1
        )
    problems["model.box_head.box_weights must be four positive numbers"] = (
        len(model.box_head.box_weights) != 4 or min(model.box_head.box_weights) <= 0
    )
    for problem, found in problems.items():
        if found:
            raise ConfigError(problem)


def from_dict(values: dict[str, Any]) -> Config:
    """Build a :class:`Config` from nested dicts.

    Raises
    ------
    ConfigError
        On an unknown key (with a suggestion), a value of the wrong type, or values that
        contradict each other.
    """
    config = _fill(Config, values, "")
    _check(config)
    return config


def load_config(path: str | Path | None, overrides: list[str] | None = None) -> Config:
    """Read a TOML file and apply ``section.key=value`` overrides (TOML values).

    Parameters
    ----------
    path : path or None
        None starts from the defaults.
    overrides : list of str
        E.g. ``["train.epochs=3", "model.neck.channels=64"]``.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read config {path}: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for item in overrides or []:
        key, found, text = item.partition("=")
        if not found:
            raise ConfigError(f"override {item!r} is not of the form section.key=value")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            value = text
        *sections, last = key.strip().split(".")
        node = values
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise ConfigError(f"override {item!r}: {section} is a value, not a section")
        node[last] = value
    return from_dict(values)
