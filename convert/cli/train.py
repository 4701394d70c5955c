"""``edgemask-convert train``."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

EXAMPLE = """example:
  edgemask-convert train --annotations train.json --images images \\
      --init mobilenet_v2_coco_ssd.npz --out runs/people --set train.epochs=20

A run that was stopped goes on where it was when the same command is given again.
"""


def add_parser(verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser(
        "train", help="train a Mask R-CNN on a COCO-format dataset", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--annotations", required=True, type=Path, help="COCO JSON")
    parser.add_argument("--images", required=True, type=Path, help="folder of its images")
    parser.add_argument("--out", required=True, type=Path, help="run folder: checkpoints, log")
    parser.add_argument("--config", type=Path, help="TOML file, see convert/configs")
    parser.add_argument("--init", type=Path, help="npz of tf.keras MobileNetV2 weights")
    parser.add_argument("--start-from", type=Path, help="checkpoint to take the weights from")
    parser.add_argument("--dev", type=Path, help="COCO JSON to measure AP on during training")
    parser.add_argument("--dev-images", type=Path, help="folder of its images [--images]")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a config value"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train until the schedule's end, saving as it goes."""
    import keras
    from tqdm import tqdm

    from ..arch import build_model
    from ..arch.backbone import load_initial_weights
    from ..checkpoint import export_model
    from ..config import load_config
    from ..dataset import CocoDataset
    from ..loader import batches
    from ..measure import DevMeasurement
    from ..trainer import History, Trainer

    config = load_config(options.config, options.set)
    data = CocoDataset(options.annotations, options.images, config.model.classes)
    quiet = not sys.stderr.isatty()
    records = data.records(lambda it: tqdm(it, "reading objects", disable=quiet, leave=False))
    steps = max(1, round(config.train.epochs * len(records) / config.train.batch_size))
    keras.utils.set_random_seed(config.train.seed)  # the weights that --init does not give
    trainer = Trainer(build_model(config.model), config, steps)
    digest = hashlib.sha256(Path(options.annotations).read_bytes()).hexdigest()
    header = {
        "classes": [{"id": c, "name": data.category_names[c]} for c in data.classes],
        "data": {"annotations": data.path.name, "sha256": digest, "images": len(records)},
        "total_steps": steps,
    }
    checkpoint = options.out / "checkpoint.npz"
    if checkpoint.exists():
        trainer.restore(checkpoint)
        print(f"resuming {checkpoint} at step {trainer.step} of {steps}")
    elif options.start_from:
        trainer.start_from(options.start_from)
    elif options.init:
        filled = load_initial_weights(trainer.model.first_stage, options.init)
        print(f"{len(filled)} layers initialised from {options.init}")
    dev = None
    if options.dev:
        folder = options.dev_images or options.images
        dev = DevMeasurement(trainer, header["classes"], options.dev, folder)
    history = History(options.out / "log.jsonl")
    saved = time.monotonic()
    bar = tqdm(total=steps, initial=trainer.step, desc="train", disable=quiet, unit="step")
    recent: list[dict[str, float]] = []
    for batch in batches(records, config, trainer.step, steps):
        recent.append(trainer.train_batch(batch))
        bar.update()
        if trainer.step % 50 == 0 or trainer.step == steps:
            means = {k: round(sum(r[k] for r in recent) / len(recent), 4) for k in recent[0]}
            history.append(step=trainer.step, **means)
            bar.set_postfix(loss=means["total"], mask=means["mask"])
            recent.clear()
        if dev and dev.due():
            values = dev()
            history.append(step=trainer.step, **values)
            tqdm.write(f"step {trainer.step}: dev mask AP {values['dev_mask_AP']:.3f}")
        if time.monotonic() - saved > 60 * config.train.save_minutes:
            trainer.save(checkpoint, header)
            saved = time.monotonic()
    bar.close()
    trainer.save(checkpoint, header)
    with trainer.averaged() as model:
        final = {"config": config.to_dict(), "step": trainer.step, **header}
        export_model(options.out / "model.npz", model, final)
    print(f"finished: {options.out / 'model.npz'} (averaged weights, float16)")
    return 0
