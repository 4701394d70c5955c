"""The training loop: AdamW with a slow trunk, warm-up + cosine, EMA, resumable."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..arch.backbone import trunk_layers
from ..arch.layers import ReLU6
from ..arch.model import MaskRCNN
from ..checkpoint import CheckpointError, assign_weights, load_arrays, save_arrays
from ..config import Config, ConfigError, from_dict
from .distill import Distillation
from .distribution import divide, synchronize_batch_norm, total
from .hint import Hint
from .network_step import StepLosses

# A column per class, or per anchor shape: not to be had from a network that has other ones.
OUTPUT_LAYERS = (
    "backbone/rpn_logits", "backbone/rpn_deltas", "box_head/box_logits", "box_head/box_deltas",
    "mask_head/mask_logits",
)  # fmt: skip


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

    It has to be made inside the scope of the `tf.distribute` strategy that it shall use, and the
    model too.

    Parameters
    ----------
    model : MaskRCNN
    config : Config
    total_steps : int
        Length of the whole schedule, resumed parts included.
    distillation : Distillation, optional
        A teacher network to learn from.
    hint : Hint, optional
        Another one, of any kind, whose features are a hint.

    Raises
    ------
    ConfigError
        The batch cannot be divided evenly among the strategy's replicas.
    """

    def __init__(
        self,
        model: MaskRCNN,
        config: Config,
        total_steps: int,
        distillation: Distillation | None = None,
        hint: Hint | None = None,
    ):
        self.model = model
        self.config = config
        self.total_steps = total_steps
        self.step = 0
        self.stopping = False  # a process asked to end, see train_batch: all do after this step
        self.strategy = tf.distribute.get_strategy()
        self.replicas = self.strategy.num_replicas_in_sync
        if config.train.batch_size % self.replicas:
            raise ConfigError(
                f"train.batch_size is {config.train.batch_size}, which {self.replicas} replicas "
                "cannot share evenly: make it a multiple of them"
            )
        if self.replicas > 1:
            synchronize_batch_norm(model.stages.values())
        for layer in (layer for stage in model.stages.values() for layer in stage.layers):
            if isinstance(layer, ReLU6):
                layer.rounds = config.train.quantization_aware
        self.losses = StepLosses(model, config, distillation, hint)
        trunk = {id(w) for lyr in trunk_layers(model.first_stage) for w in lyr.trainable_weights}
        trained = [m for name, m in model.stages.items() if name in self.losses.trained]
        trainable = [w for m in trained for w in m.trainable_weights]
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
            k: tf.Variable(
                tf.convert_to_tensor(v), trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            for k, v in self.named.items()
        }  # fmt: skip
        self._train_step = tf.function(self._divided_step, reduce_retracing=True)

    def _divided_step(self, batch, seed, ema_decay, stop):
        return self.strategy.run(self._step, args=(batch, seed, ema_decay, stop))

    def _step(self, batch, seed, ema_decay, stop):
        """One replica's part. Losses are sums over the replicas, the same on all of them."""
        with tf.GradientTape() as tape:
            loss = self.losses(batch, seed)
        variables = [w.value for w in self.slow + self.fast]
        gradients = tape.gradient(loss["total"], variables)
        loss = dict(zip(loss, tf.unstack(total(tf.stack(list(loss.values())))), strict=True))
        if self.replicas > 1:
            # Clipping needs the sum of all replicas, and the optimisers add up what they are
            # given: so each gets the mean, and the norm is that of the sum.
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
        limit = self.config.train.clip_norm / self.replicas
        gradients, norm = tf.clip_by_global_norm(gradients, limit)
        split = len(self.slow)
        if split:
            self.optimizers[0].apply(gradients[:split], self.slow)
        self.optimizers[1].apply(gradients[split:], self.fast)
        for name, weight in self.named.items():
            self.ema[name].assign_add((1.0 - ema_decay) * (weight.value - self.ema[name]))
        loss["grad_norm"] = norm * self.replicas
        loss["stop"] = total(stop)
        return loss

    def train_batch(self, batch: dict[str, np.ndarray], stop: bool = False) -> dict[str, float]:
        """One optimiser step.

        Parameters
        ----------
        batch : dict
            This process's part of the batch, see :func:`..data.loader.batches`.
        stop : bool
            Whether this process wants to end after this step; see :attr:`stopping`.

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
        tensors = divide(self.strategy, {k: v for k, v in batch.items() if k != "image_id"})
        wish = tf.constant(float(stop))
        loss = self._train_step(tensors, seed, tf.constant(decay, tf.float32), wish)
        values = {k: float(self.strategy.experimental_local_results(v)[0]) for k, v in loss.items()}
        self.stopping = values.pop("stop") > 0
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
        if from_dict(header.get("config", {})).model != self.config.model:
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

    def start_from(self, path: str | Path) -> list[str]:
        """Take only the (averaged) weights of a checkpoint: a new schedule starts at step 0.

        A network without keypoints may be given one's keypoint head, and other classes or anchors;
        the names of the layers that start with random weights are returned.
        """
        arrays, _ = load_arrays(path)
        averaged = {k.removeprefix("ema/"): v for k, v in arrays.items() if k.startswith("ema/")}
        optional = ("keypoint_head", *OUTPUT_LAYERS)
        fresh = assign_weights(self.model, averaged or arrays, path, optional)
        trained = {lyr.name for s in self.losses.trained for lyr in self.model.stages[s].layers}
        fixed = [layer for layer in fresh if layer not in trained]
        if fixed:
            raise CheckpointError(
                f"{path} has no matching weights for the layers {', '.join(fixed)}, and "
                "train.only leaves them as they are: add their stages to train.only"
            )
        for name, variable in self.ema.items():
            variable.assign(self.named[name].value)
        return fresh

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
