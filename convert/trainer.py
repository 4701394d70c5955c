"""The training loop: AdamW with a slow trunk, warm-up + cosine, EMA, resumable."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .arch.backbone import trunk_layers
from .arch.model import MaskRCNN
from .checkpoint import CheckpointError, assign_weights, load_arrays, save_arrays
from .config import Config
from .network_step import StepLosses


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the step and the images."""


def learning_rate(step: int, total: int, config: Config) -> float:
    """Linear warm-up, then one cosine down to ``final_lr_fraction``."""
    t = config.train
    if step < t.warmup_steps:
        return t.learning_rate * (step + 1) / t.warmup_steps
    progress = (step - t.warmup_steps) / max(total - t.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return t.learning_rate * (t.final_lr_fraction + (1 - t.final_lr_fraction) * cosine)


class Trainer:
    """Owns the optimisers, the averaged weights and the step function.

    Parameters
    ----------
    model : MaskRCNN
    config : Config
    total_steps : int
        Length of the whole schedule, resumed parts included.
    """

    def __init__(self, model: MaskRCNN, config: Config, total_steps: int):
        self.model = model
        self.config = config
        self.total_steps = total_steps
        self.step = 0
        self.losses = StepLosses(model, config)
        trunk = {id(w) for lyr in trunk_layers(model.first_stage) for w in lyr.trainable_weights}
        trainable = [w for m in model.stages.values() for w in m.trainable_weights]
        self.slow = [w for w in trainable if id(w) in trunk]
        self.fast = [w for w in trainable if id(w) not in trunk]
        self.optimizers = []
        for group in (self.slow, self.fast):
            optimizer = keras.optimizers.AdamW(1e-3, weight_decay=config.train.weight_decay)
            optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
            optimizer.build(group)
            self.optimizers.append(optimizer)
        self.named = model.named_weights()
        self.ema = {
            k: tf.Variable(tf.convert_to_tensor(v), trainable=False) for k, v in self.named.items()
        }
        self._train_step = tf.function(self._step, reduce_retracing=True)

    def _step(self, batch, seed, ema_decay):
        with tf.GradientTape() as tape:
            loss = self.losses(batch, seed)
        variables = [w.value for w in self.slow + self.fast]
        gradients = tape.gradient(loss["total"], variables)
        gradients, norm = tf.clip_by_global_norm(gradients, self.config.train.clip_norm)
        split = len(self.slow)
        if split:
            self.optimizers[0].apply(gradients[:split], self.slow)
        self.optimizers[1].apply(gradients[split:], self.fast)
        for name, weight in self.named.items():
            self.ema[name].assign_add((1.0 - ema_decay) * (weight.value - self.ema[name]))
        loss["grad_norm"] = norm
        return loss

    def train_batch(self, batch: dict[str, np.ndarray]) -> dict[str, float]:
        """One optimiser step.

        Returns
        -------
        dict
            Losses as floats.

        Raises
        ------
        TrainingError
            If the loss or its gradient is not finite; no weight file is touched.
        """
        t = self.config.train
        rate = learning_rate(self.step, self.total_steps, self.config)
        self.optimizers[0].learning_rate.assign(rate * t.backbone_multiplier)
        self.optimizers[1].learning_rate.assign(rate)
        # A short memory at first, so that the average forgets the random start.
        decay = min(t.ema_decay, (1 + self.step) / (10 + self.step))
        seed = tf.constant([t.seed, self.step], tf.int32)
        images = batch["image_id"].tolist()
        tensors = {k: tf.convert_to_tensor(v) for k, v in batch.items() if k != "image_id"}
        loss = self._train_step(tensors, seed, tf.constant(decay, tf.float32))
        values = {k: float(v) for k, v in loss.items()}
        # A gradient can overflow where the loss does not, and the weights are spoilt then.
        if not all(map(math.isfinite, values.values())):
            parts = ", ".join(f"{k}={v:.3g}" for k, v in values.items())
            raise TrainingError(
                f"the loss is not finite at step {self.step} (images {images}): {parts}; look at "
                "these images, or lower train.learning_rate"
            )
        self.step += 1
        return values

    def state(self) -> dict[str, np.ndarray]:
        """Everything that a resumed run needs, as named arrays."""
        arrays = {f"model/{k}": np.asarray(v) for k, v in self.named.items()}
        arrays |= {f"ema/{k}": v.numpy() for k, v in self.ema.items()}
        for index, optimizer in enumerate(self.optimizers):
            for j, variable in enumerate(optimizer.variables):
                arrays[f"optimizer{index}/{j}"] = np.asarray(variable)
        return arrays

    def save(self, path: str | Path, extra: dict[str, Any]) -> None:
        """Write a training checkpoint."""
        header = {"config": self.config.to_dict(), "step": self.step, **extra}
        save_arrays(path, self.state(), header)

    def restore(self, path: str | Path) -> dict[str, Any]:
        """Continue from a training checkpoint of the same configuration.

        Returns the checkpoint's header.
        """
        arrays, header = load_arrays(path)
        if header.get("config", {}).get("model") != self.config.to_dict()["model"]:
            raise CheckpointError(f"{path} was trained with another [model] configuration")
        live = {k.removeprefix("model/"): v for k, v in arrays.items() if k.startswith("model/")}
        assign_weights(self.model, live, path)
        try:
            for name, variable in self.ema.items():
                variable.assign(arrays[f"ema/{name}"])
            for index, optimizer in enumerate(self.optimizers):
                for j, variable in enumerate(optimizer.variables):
                    variable.assign(arrays[f"optimizer{index}/{j}"])
            self.step = int(header["step"])
        except KeyError as error:
            raise CheckpointError(
                f"{path} is not a training checkpoint: it has no {error.args[0]}; use it with "
                "--start-from"
            ) from error
        return header

    def start_from(self, path: str | Path) -> None:
        """Take only the (averaged) weights of a checkpoint: a new schedule starts at step 0."""
        arrays, _ = load_arrays(path)
        averaged = {k.removeprefix("ema/"): v for k, v in arrays.items() if k.startswith("ema/")}
        assign_weights(self.model, averaged or arrays, path)
        for name, variable in self.ema.items():
            variable.assign(self.named[name].value)

    def averaged(self):
        """Context manager: the model carries its averaged weights inside the block."""
        return _Swapped(self)


class _Swapped:
    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def __enter__(self) -> MaskRCNN:
        self.live = {k: np.asarray(v) for k, v in self.trainer.named.items()}
        for name, weight in self.trainer.named.items():
            weight.assign(self.trainer.ema[name].value())
        return self.trainer.model

    def __exit__(self, *exc) -> None:
        for name, weight in self.trainer.named.items():
            weight.assign(self.live[name])


class History:
    """Appends one JSON line per report to ``log.jsonl``."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, **values: Any) -> None:
        """Write a row with a wall-clock time stamp."""
        row = {"time": round(time.time(), 1), **values}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
