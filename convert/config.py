"""Configuration of a model and of its training: dataclasses read from TOML.

Every key has a default, so a config file holds only what differs. Unknown keys
are refused with the nearest known name, because a misspelt learning rate that
is silently ignored costs hours.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config_rules import first_problem


class ConfigError(ValueError):
    """A config file has an unknown key or a value of the wrong type."""


@dataclass
class BackboneConfig:
    """MobileNetV2 trunk (Sandler et al. 2018), BatchNorm folded into the convolutions.

    With the kind ``maskrcnn2go`` the whole network is MaskRCNN2Go's, see :mod:`.arch.maskrcnn2go`:
    alpha, last_block, stem, the neck, and the blocks and widths of the heads have no meaning then.
    """

    kind: str = "mobilenet_v2"  # or maskrcnn2go
    alpha: float = 1.0
    last_block: int = 15  # blocks 0..16 exist; 16 costs 60 MMAC and adds little
    frozen_blocks: int = 2  # stem and blocks 0..frozen_blocks are not trained; -1 trains all
    stem: int = 0  # channels of the first convolution, 0: MobileNetV2's
    expansions: list[int] = field(default_factory=list)  # of blocks 1..last_block (maskrcnn2go: of
    # its 13 blocks), as prune chose them; empty: not pruned
    # Expanded channels of three fused blocks in the place of blocks 0..3, or of one in the place of
    # blocks 0 and 1; empty: MobileNetV2's own
    fused: list[int] = field(default_factory=list)


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
    # x0, y0, x1, y1 in pixels from the middle of a cell, instead of scale and ratios; one level
    anchor_boxes: list[list[float]] = field(default_factory=list)
    expansions: list[int] = field(default_factory=list)  # maskrcnn2go: of the RPN's 3 blocks
    pre_nms: int = 200
    post_nms: int = 50
    nms_threshold: float = 0.7
    score_threshold: float = 0.0  # regions of less objectness are no proposals on the device


@dataclass
class BoxHeadConfig:
    """Second stage: RoIAlign → two fully connected layers → class logits and box deltas."""

    output_size: int = 7
    sampling_ratio: int = 2
    features: list[str] = field(default_factory=lambda: ["p3", "p4", "p5"])
    level_thresholds: list[float] = field(default_factory=lambda: [112.0, 224.0])
    width: int = 256
    expansions: list[int] = field(default_factory=list)  # maskrcnn2go: of the head's 4 blocks
    activation: str = "sigmoid"  # softmax: with a column for the background, the first
    class_agnostic: bool = True  # one box for all classes, or one for each
    box_weights: list[float] = field(default_factory=lambda: [10.0, 10.0, 5.0, 5.0])
    nms_threshold: float = 0.5


@dataclass
class ContextConfig:
    """A path at half the resolution that sees the whole region, in the mask and keypoint heads.

    ``channels = 0`` leaves it out.
    """

    channels: int = 0
    blocks: int = 3  # dense 3x3 convolutions
    dense: int = 12  # channels that the fully connected layer reads; 0: without such a layer


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
    context: ContextConfig = field(default_factory=ContextConfig)
    expansions: list[int] = field(default_factory=list)  # maskrcnn2go: of the head's 4 blocks
    class_agnostic: bool = True
    threshold: float = 0.5
    soft_nms_threshold: float = 1.0  # overlap of masks from which scores are lowered; 1: none


@dataclass
class KeypointHeadConfig:
    """Keypoint branch: as the mask branch, with COCO's 17 keypoints of one class as heatmaps.

    ``blocks = 0`` leaves it out.
    """

    blocks: int = 0
    class_id: int = 1  # the class that has keypoints
    output_size: int = 14
    sampling_ratio: int = 2
    features: list[str] = field(default_factory=lambda: ["p2", "p3", "p4"])
    level_thresholds: list[float] = field(default_factory=lambda: [64.0, 224.0])
    width: int = 128
    kernel: int = 5
    up_channels: int = 64
    context: ContextConfig = field(default_factory=ContextConfig)
    box_scale: float = 1.0  # regions are this much larger than the boxes


@dataclass
class ModelConfig:
    """Everything that fixes the network's shape."""

    name: str = "people"
    classes: list[int] = field(default_factory=lambda: [1])  # COCO category ids
    short_side: int = 320
    max_aspect: float = 2.0
    resize: str = "averaged"  # or bilinear: faster, for a network trained with plain_resize
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    neck: NeckConfig = field(default_factory=NeckConfig)
    rpn: RPNConfig = field(default_factory=RPNConfig)
    box_head: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    mask_head: MaskHeadConfig = field(default_factory=MaskHeadConfig)
    keypoint_head: KeypointHeadConfig = field(default_factory=KeypointHeadConfig)


@dataclass
class AugmentConfig:
    """Random crops of a random scale; see :mod:`.data.augment`."""

    crop: int = 320
    min_short_side: int = 224
    max_short_side: int = 512
    aspect_jitter: float = 0.1
    flip: float = 0.5
    color: float = 0.3
    plain_resize: float = 0.0  # share of crops shrunk without averaging, as fast resizers do it
    copy_paste: float = 0.0  # share of crops that get objects of another photograph
    rotate: float = 0.0  # every second photograph is turned by up to so many degrees


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
    keypoint_rois: int = 16
    keypoint_sigma: float = 1.0  # of the target heatmaps, in cells; 0: the one cell, as Mask R-CNN
    proposals: int = 100
    weight_rpn_class: float = 1.0
    weight_rpn_box: float = 2.0
    weight_class: float = 1.0
    weight_box: float = 2.0
    weight_mask: float = 2.0
    weight_keypoint: float = 1.0
    only: list[str] = field(default_factory=list)  # stages to train, the others fixed; []: all
    quantization_aware: bool = False  # round activations while training, as int8 does
    save_minutes: float = 5.0
    eval_epochs: float = 3.0
    eval_images: int = 100
    workers: int = 2
    deterministic: bool = True  # the same seed gives the same run, bit by bit


@dataclass
class DistillConfig:
    """Losses against a teacher, see :mod:`.training.distill`, and hints, :mod:`.training.hint`."""

    zoom: int = 1  # the teacher sees crops this many times as large: it teaches the small objects
    weight_feature: float = 1.0
    weight_rpn: float = 1.0
    weight_class: float = 1.0
    weight_box: float = 1.0
    weight_mask: float = 2.0
    weight_hint: float = 1.0
    hint_closeups: int = 3  # crops of a batch that the network of --hint also sees twice as large


@dataclass
class Config:
    """A whole experiment: model, augmentation, training."""

    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict, JSON-ready; :func:`from_dict` reads it back."""
        return dataclasses.asdict(self)


ELEMENTS = {"list[int]": int, "list[float]": float, "list[str]": str, "list[list[float]]": list}


def _fill(cls: type, values: dict[str, Any], where: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(cls)}
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {where + near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"unknown key {where + key!r}; {hint}")
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
            value = _list(value, ELEMENTS[str(known[key].type)], f"{where}{key}")
        made[key] = value
    return cls(**made)


def _list(values: list[Any], kind: type, where: str) -> list[Any]:
    if kind is float:
        values = [float(v) if type(v) is int else v for v in values]
    for value in values:
        if type(value) is not kind:
            raise ConfigError(f"{where} must be a list of {kind.__name__}, found {value!r} in it")
    if kind is list:  # the only lists of lists are of numbers
        return [_list(value, float, f"{where}[{i}]") for i, value in enumerate(values)]
    return values


def from_dict(values: dict[str, Any]) -> Config:
    """Build a :class:`Config` from nested dicts.

    Raises
    ------
    ConfigError
        On an unknown key (with a suggestion), a value of the wrong type, or values that
        contradict each other.
    """
    config = _fill(Config, values, "")
    problem = first_problem(config)
    if problem:
        raise ConfigError(problem)
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
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not a TOML file: it is not UTF-8 text") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return with_overrides(values, overrides or [])


def with_overrides(values: dict[str, Any], overrides: Sequence[str]) -> Config:
    """Build a :class:`Config` from nested dicts, as changed by ``section.key=value`` (TOML values).

    Raises
    ------
    ConfigError
        As :func:`from_dict`, and on an override that is not of that form.
    """
    values = copy.deepcopy(values)
    for item in overrides:
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
