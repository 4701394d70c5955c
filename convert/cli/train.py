"""``edgemask-convert train``."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemask.terminal import bar_options

from .common import formatted

if TYPE_CHECKING:
    import tensorflow as tf

    from ..arch.model import MaskRCNN
    from ..config import Config
    from ..training.distill import Distillation
    from ..training.hint import Hint
    from ..training.trainer import Trainer

EXAMPLE = """example:
  edgemask-convert train --annotations train.json --images images \\
      --init mobilenet_v2_coco_ssd.npz --out runs/people --set train.epochs=20

A run that was stopped (Ctrl-C and SIGTERM save first) resumes when the same command is given again.
OUT gets checkpoint.npz, model.npz, log.jsonl, curves.png and a folder tensorboard.
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = formatted(verbs, "train", "train a Mask R-CNN on a COCO-format dataset", EXAMPLE)
    parser.add_argument("--annotations", required=True, type=Path, help="COCO JSON")
    parser.add_argument("--images", required=True, type=Path, help="folder of its images")
    parser.add_argument("--out", required=True, type=Path, help="run folder: checkpoints, log")
    parser.add_argument("--config", type=Path, help="TOML file, see convert/configs")
    parser.add_argument("--init", type=Path, help="npz of tf.keras MobileNetV2 weights")
    parser.add_argument("--start-from", type=Path, help="checkpoint to take the weights from")
    parser.add_argument(
        "--distill", type=Path, metavar="CHECKPOINT", help="trained network to learn from, too"
    )
    parser.add_argument(
        "--hint", type=Path, metavar="CHECKPOINT",
        help="network of any kind, such as MaskRCNN2Go, whose features teach the backbone",
    )  # fmt: skip
    parser.add_argument("--dev", type=Path, help="COCO JSON to measure AP on during training")
    parser.add_argument("--dev-images", type=Path, help="folder of its images [--images]")
    parser.add_argument(
        "--strategy", choices=("auto", "none", "mirrored", "multiworker"), default="auto",
        help="divide each batch among this machine's GPUs, or the machines in TF_CONFIG [auto]",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a config value"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train until the schedule's end, saving as it goes."""
    from ..config import load_config
    from ..training.distribution import make_strategy

    if options.init and options.start_from:
        raise ValueError("--init and --start-from both give the first weights: leave out one")
    if options.dev_images and not options.dev:
        raise ValueError("--dev-images needs --dev: the COCO JSON to measure AP on")
    config = load_config(options.config, options.set)
    # Before anything else runs in TensorFlow: later it refuses.
    strategy = make_strategy(options.strategy)
    if config.train.deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    return _train(options, config, strategy)


def _train(options: argparse.Namespace, config: Config, strategy: tf.distribute.Strategy) -> int:
    import keras
    from tqdm import tqdm

    from ..arch import build_model
    from ..checkpoint import export_model
    from ..data.dataset import CocoDataset, check_objects
    from ..data.keypoints import check_keypoints
    from ..data.loader import batches
    from ..evaluation.measure import DevMeasurement
    from ..training.distribution import check_agreement, workers
    from ..training.fit import fit
    from ..training.trainer import Trainer, learning_rate

    share = workers(strategy)
    chief = share[0] == 0
    data = CocoDataset(options.annotations, options.images, config.model.classes)
    shown = bar_options(sys.stderr) if chief else {"disable": True}
    records = data.records(lambda it: tqdm(it, "reading objects", leave=False, **shown))
    check_objects(records, data.category_names, options.annotations)
    check_keypoints(records, config.model, options.annotations)
    steps = max(1, round(config.train.epochs * len(records) / config.train.batch_size))
    keras.utils.set_random_seed(config.train.seed)  # the weights that --init does not give
    kept = _kept_channels(options)
    say = print if chief else lambda text: None
    if steps <= config.train.warmup_steps:
        say(f"the run has {steps} steps, all within train.warmup_steps = "
            f"{config.train.warmup_steps}: the learning rate only rises, up to "
            f"{learning_rate(steps - 1, steps, config):.2g}; lower it for a short run")  # fmt: skip
    with strategy.scope():
        model = build_model(config.model)
        distillation = _distillation(options, config, model, kept, say)
        trainer = Trainer(model, config, steps, distillation, _hint(options, config, model))
    digest, teacher, hint = (
        path and hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (options.annotations, options.distill, options.hint)
    )
    header = {
        "classes": [{"id": c, "name": data.category_names[c]} for c in data.classes],
        "data": {
            "annotations": data.path.name,
            "sha256": digest,
            "images": len(records),
            "teacher": teacher,
            "first_weights": _first_weights(options),
        },
        "total_steps": steps,
    }
    if hint:
        header["data"]["hint"] = hint
    if kept:
        header["neck_channels"] = kept
    _initialize(trainer, options, header["data"], say)
    check_agreement(
        strategy,
        {
            "configuration": config.to_dict(),
            "annotation file": header["data"],
            "checkpoint to go on from": trainer.step,
        },
    )
    dev = None
    if options.dev and chief:
        folder = options.dev_images or options.images
        dev = DevMeasurement(trainer, header["classes"], options.dev, folder)
    if trainer.replicas > 1 and chief:
        print(f"{trainer.replicas} replicas in {share[1]} processes share each batch")
    checkpoint = options.out / "checkpoint.npz"
    zoom = config.distill.zoom if options.distill else 1
    ready = batches(records, config, trainer.step, steps, share, zoom)
    stopped = fit(trainer, ready, header, checkpoint, chief, dev)
    if chief and not stopped:
        with trainer.averaged() as model:
            final = {"config": config.to_dict(), "step": trainer.step, **header}
            export_model(options.out / "model.npz", model, final)
        print(f"finished: {options.out / 'model.npz'} (averaged weights, float16)")
    elif chief:
        print(f"stopped at step {trainer.step} of {steps}: the same command resumes from there")
    # Nobody leaves before the files are written: a worker that goes takes the others with it.
    check_agreement(strategy, {"end of the run": trainer.step})
    return 128 + stopped if stopped else 0


def _first_weights(options: argparse.Namespace) -> str | None:
    """The sha256 of the first weights; as recorded, if a run that goes on has no file of them."""
    from ..checkpoint import load_header

    path, checkpoint = options.start_from or options.init, options.out / "checkpoint.npz"
    if path and path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if checkpoint.is_file():
        return load_header(checkpoint).get("data", {}).get("first_weights")
    return None


def _kept_channels(options: argparse.Namespace) -> list[int] | None:
    """Which of its parent's pyramid channels a pruned network has; distilling features needs it."""
    from ..checkpoint import load_header

    for path in (options.out / "checkpoint.npz", options.start_from):
        if path and path.exists() and (kept := load_header(path).get("neck_channels")):
            return kept
    return None


def _distillation(
    options: argparse.Namespace,
    config: Config,
    model: MaskRCNN,
    channels: list[int] | None,
    say: Callable[[str], Any],
) -> Distillation | None:
    """Open the teacher of --distill."""
    from ..checkpoint import load_model
    from ..config import ConfigError
    from ..training.distill import Distillation

    if not options.distill:
        return None
    if config.train.only == ["keypoint_head"]:
        raise ConfigError(
            "--distill teaches the backbone, boxes and masks, and train.only = ['keypoint_head'] "
            "leaves them as they are: leave out one of them"
        )
    teacher, _ = load_model(options.distill)
    width = teacher.layout.channels
    # They are numbers of the parent's: they say nothing of a teacher that is as narrow as itself.
    if channels and (width == model.layout.channels or max(channels) >= width):
        channels = None
    distillation = Distillation(teacher, model, config.distill, channels)
    if distillation.channels is None and config.distill.zoom == 1:
        say(f"features are not compared: nothing says which of the {width} channels of "
            f"{options.distill} the network's {model.layout.channels} correspond to")  # fmt: skip
    return distillation


def _hint(options: argparse.Namespace, config: Config, model: MaskRCNN) -> Hint | None:
    """Open the network of --hint."""
    from ..checkpoint import load_model
    from ..config import ConfigError
    from ..training.hint import Hint

    if not options.hint:
        return None
    if config.train.only and "backbone" not in config.train.only:
        raise ConfigError(
            f"--hint teaches the backbone only, and train.only = {config.train.only} leaves it as "
            "it is: leave out one of them"
        )
    return Hint(load_model(options.hint)[0], model, config.distill.hint_closeups)


def _initialize(
    trainer: Trainer, options: argparse.Namespace, data: dict[str, Any], say: Callable[[str], Any]
) -> None:
    """Give the network its first weights: the run's own, another's, or the trunk's."""
    from ..arch.backbone import load_initial_weights
    from ..checkpoint import check_same_run, load_header
    from ..config import ConfigError

    checkpoint = options.out / "checkpoint.npz"
    if checkpoint.exists():
        check_same_run(load_header(checkpoint), trainer.config, data, checkpoint)
        trainer.restore(checkpoint)
        say(f"resuming {checkpoint} at step {trainer.step} of {trainer.total_steps}")
    elif options.start_from:
        fresh = trainer.start_from(options.start_from)
        if fresh:
            say(f"{options.start_from} has no matching weights for these layers, so they start "
                f"fresh: {', '.join(fresh)}")  # fmt: skip
    elif trainer.config.train.only:
        raise ConfigError(
            f"train.only = {trainer.config.train.only} leaves the other stages as they are, but "
            "they have no weights yet: give --start-from"
        )
    elif options.init:
        filled = load_initial_weights(trainer.model.first_stage, options.init)
        say(f"{len(filled)} layers initialised from {options.init}")
