from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.arch import build_model
from edgemask_convert.arch.layers import ReLU6
from edgemask_convert.checkpoint import CheckpointError, export_model, load_model
from edgemask_convert.config import ConfigError, from_dict
from edgemask_convert.training.trainer import Trainer, TrainingError, learning_rate

from ..conftest import CLASSES, TINY, make_batch

HEADER = {"classes": CLASSES}
SCHEDULE = from_dict({"train": {"learning_rate": 1.0, "warmup_steps": 4, "final_lr_fraction": 0.1}})


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.25),
        (1, 0.5),
        (3, 1.0),
        (4, 1.0),  # the cosine starts at its top
        (54, 0.1 + 0.9 * 0.5),  # half way from 4 to 104
        (29, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),  # a quarter
        (104, 0.1),
        (200, 0.1),  # beyond the end it stays
    ],
)
def test_learning_rate(step: int, expected: float) -> None:
    assert learning_rate(step, 104, SCHEDULE) == pytest.approx(expected)


def test_learning_rate_of_a_run_shorter_than_the_warmup() -> None:
    assert learning_rate(1, 2, SCHEDULE) == 0.5
    assert learning_rate(4, 4, SCHEDULE) == 1.0


def make_trainer(seed: int = 5) -> Trainer:
    """A trainer of a fresh tiny network."""
    keras.utils.set_random_seed(seed)
    config = from_dict(TINY)
    return Trainer(build_model(config.model), config, total_steps=4)


@pytest.mark.parametrize("aware", [True, False])
def test_activations_are_rounded_if_the_configuration_says_so(aware: bool) -> None:
    config = from_dict(TINY | {"train": TINY["train"] | {"quantization_aware": aware}})
    model = build_model(config.model)
    Trainer(model, config, total_steps=4)
    for stage in ("backbone", "mask_head"):
        found = [layer for layer in model.stages[stage].layers if isinstance(layer, ReLU6)]
        assert found
        assert {layer.rounds for layer in found} == {aware}
    image = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    p3 = np.asarray(model.first_stage(image, training=True)["p3"]) * (255 / 6)
    assert (np.abs(p3 - np.rint(p3)).max() < 1e-3) == aware


def numbered(batch: dict[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
    """Return a batch that differs from step to step."""
    return batch | {"image": np.roll(batch["image"], step, axis=1)}


@dataclass
class Run:
    """Four steps without a break; `checkpoints` has the state before the first and the third."""

    trainer: Trainer
    losses: list[dict[str, float]]
    checkpoints: dict[int, Path]
    end: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The one trainer whose step is compiled: that takes far longer than the steps."""
    # Threads add in any order, and Adam turns the last bit of a small gradient into a whole step.
    tf.config.experimental.enable_op_determinism()
    folder = tmp_path_factory.mktemp("run")
    trainer = make_trainer()
    done = Run(trainer, [], {}, {})
    batch = make_batch()
    for step in range(4):
        if step in (0, 2):
            done.checkpoints[step] = folder / f"{step}.npz"
            trainer.save(done.checkpoints[step], HEADER)
        done.losses.append(trainer.train_batch(numbered(batch, step)))
    done.end = trainer.state()
    return done


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Compare all that a trainer holds."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("step", [0, 2])
def test_resumed_run_equals_an_unbroken_one(
    run: Run, batch: dict[str, np.ndarray], step: int
) -> None:
    """From step 2: a resumed run. From step 0: the same seed gives the same run."""
    for variable in [*run.trainer.named.values(), *run.trainer.ema.values()]:
        variable.assign(np.full(variable.shape, 0.5, np.float32))
    for optimizer in run.trainer.optimizers:
        for variable in optimizer.variables:
            variable.assign(np.ones(variable.shape, variable.dtype))
    header = run.trainer.restore(run.checkpoints[step])
    assert run.trainer.step == header["step"] == step
    assert header["classes"] == CLASSES
    again = [run.trainer.train_batch(numbered(batch, n)) for n in range(step, 4)]
    for found, expected in zip(again, run.losses[step:], strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
    assert run.trainer.step == 4
    assert_same(run.trainer.state(), run.end)


def test_restoring_in_a_new_process(run: Run) -> None:
    other = make_trainer(seed=99)
    other.restore(run.checkpoints[2])
    run.trainer.restore(run.checkpoints[2])
    assert_same(other.state(), run.trainer.state())


def test_what_moves(run: Run) -> None:
    """Frozen layers stay, the others move, and the average trails behind."""
    start = {name: np.asarray(weight) for name, weight in make_trainer().named.items()}
    frozen = "backbone/Conv1/kernel"
    np.testing.assert_array_equal(run.end[f"model/{frozen}"], start[frozen])
    for name in ("backbone/block_13_project/kernel", "mask_head/mask_logits/kernel"):
        live, average = run.end[f"model/{name}"], run.end[f"ema/{name}"]
        assert 0 < np.abs(average - start[name]).max() < np.abs(live - start[name]).max()
    assert len(run.trainer.slow) > 0
    assert all(weight.trainable for weight in run.trainer.slow + run.trainer.fast)


def test_loss_that_is_not_finite(run: Run, batch: dict[str, np.ndarray]) -> None:
    files = {path: path.read_bytes() for path in run.checkpoints.values()}
    run.trainer.restore(run.checkpoints[2])
    kernel = run.trainer.named["box_head/box_logits/kernel"]
    kernel.assign(np.full(kernel.shape, np.nan, np.float32))
    with pytest.raises(TrainingError, match=r"step 2 \(images \[11, 12\]\).*class=nan") as caught:
        run.trainer.train_batch(batch)
    assert "train.learning_rate" in str(caught.value)
    assert run.trainer.step == 2
    folder = run.checkpoints[2].parent
    assert {path: path.read_bytes() for path in folder.iterdir()} == files


def test_gradient_that_is_not_finite(run: Run, batch: dict[str, np.ndarray]) -> None:
    other = copy.copy(run.trainer)
    other._train_step = lambda *_: {"total": 1.0, "grad_norm": float("inf"), "stop": 0.0}
    with pytest.raises(TrainingError, match="grad_norm=inf"):
        other.train_batch(batch)


def test_a_wish_to_stop_is_told(run: Run, batch: dict[str, np.ndarray]) -> None:
    run.trainer.restore(run.checkpoints[2])
    assert "stop" not in run.trainer.train_batch(batch)
    assert not run.trainer.stopping
    run.trainer.train_batch(batch, stop=True)
    assert run.trainer.stopping


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Path]:
    """A trainer whose averaged weights differ from its live ones, and its checkpoint."""
    trainer = make_trainer()
    for variable in trainer.ema.values():
        variable.assign(variable + 0.25)
    path = tmp_path_factory.mktemp("run") / "checkpoint.npz"
    trainer.save(path, HEADER)
    return trainer, path


def test_averaged_weights_are_swapped_in_and_out(saved: tuple[Trainer, Path]) -> None:
    trainer, _ = saved
    kernel = trainer.named["box_head/box_fc1/kernel"]
    live = np.asarray(kernel).copy()
    with trainer.averaged() as model:
        assert model is trainer.model
        np.testing.assert_allclose(kernel, live + 0.25, atol=1e-6)
    np.testing.assert_array_equal(kernel, live)


def test_averaged_weights_are_swapped_out_after_an_error(saved: tuple[Trainer, Path]) -> None:
    trainer, _ = saved
    live = np.asarray(trainer.named["box_head/box_fc1/kernel"]).copy()
    with pytest.raises(KeyError), trainer.averaged():
        raise KeyError
    np.testing.assert_array_equal(trainer.named["box_head/box_fc1/kernel"], live)


def test_load_model_takes_the_average(saved: tuple[Trainer, Path]) -> None:
    trainer, path = saved
    model, header = load_model(path)
    assert header["classes"] == CLASSES
    assert header["step"] == 0
    name = "backbone/fpn_lateral5/kernel"
    np.testing.assert_array_equal(model.named_weights()[name], trainer.ema[name])


def test_start_from(saved: tuple[Trainer, Path], tmp_path: Path) -> None:
    """A new run takes the average, from a checkpoint or from an exported model."""
    trainer, path = saved
    other = make_trainer(seed=8)
    other.start_from(path)
    exported = tmp_path / "model.npz"
    with trainer.averaged() as model:
        export_model(exported, model, HEADER)
    for source in (path, exported):
        other.start_from(source)
        assert other.step == 0
        for name in ("box_head/box_fc1/kernel", "backbone/Conv1/bias"):
            np.testing.assert_allclose(other.named[name], trainer.ema[name], atol=1e-3)
            np.testing.assert_array_equal(other.ema[name], other.named[name])


def test_refuses_another_network(saved: tuple[Trainer, Path]) -> None:
    changed = copy.deepcopy(TINY)
    changed["model"]["box_head"]["width"] = 24
    config = from_dict(changed)
    other = Trainer(build_model(config.model), config, total_steps=4)
    with pytest.raises(CheckpointError, match=r"was trained with another \[model\]"):
        other.restore(saved[1])
    with pytest.raises(CheckpointError, match=r"box_head/box_fc1/kernel has shape .* the network"):
        other.start_from(saved[1])


def test_exported_model_is_no_training_checkpoint(
    saved: tuple[Trainer, Path], tmp_path: Path
) -> None:
    trainer, _ = saved
    path = tmp_path / "model.npz"
    export_model(path, trainer.model, {"config": trainer.config.to_dict(), "step": 7})
    with pytest.raises(CheckpointError, match="has no"):
        trainer.restore(path)


def test_what_a_step_is_given(saved: tuple[Trainer, Path], batch: dict[str, np.ndarray]) -> None:
    """Rates of both groups of weights, a seed of its own, and how fast the average forgets."""
    other = copy.copy(saved[0])
    seen: list[tuple[list[int], float]] = []

    def step(tensors: Any, seed: Any, decay: Any, stop: Any) -> dict[str, float]:
        seen.append((seed.numpy().tolist(), float(decay)))
        return {"total": 1.0, "grad_norm": 1.0, "stop": 0.0}

    other._train_step = step
    for number in (0, 2, 10**6):
        other.step = number
        other.train_batch(batch)
        rate = learning_rate(number, 4, other.config)
        slow, fast = (float(optimizer.learning_rate) for optimizer in other.optimizers)
        assert fast == pytest.approx(rate)
        assert slow == pytest.approx(rate * other.config.train.backbone_multiplier)
    # 1 of 10 at first, 3 of 12, and never more than the configuration says
    assert seen == [([1, 0], pytest.approx(0.1)), ([1, 2], pytest.approx(0.25)),
                    ([1, 10**6], pytest.approx(other.config.train.ema_decay))]  # fmt: skip


class Recorder:
    """An optimiser that only looks."""

    def apply(self, gradients: list[Any], weights: list[Any]) -> None:
        self.given = {w.path: np.asarray(tf.convert_to_tensor(g)) for g, w in
                      zip(gradients, weights, strict=True)}  # fmt: skip


def test_gradients_are_clipped_together_and_the_average_follows(
    saved: tuple[Trainer, Path], eager: None
) -> None:
    other = copy.copy(saved[0])
    other.optimizers = [Recorder(), Recorder()]
    weights = other.slow + other.fast
    # the gradient of each weight is 1000 everywhere
    other.losses = lambda batch, seed: {
        "total": 1000.0 * tf.add_n([tf.reduce_sum(weight.value) for weight in weights])
    }
    before = {name: variable.numpy() for name, variable in other.ema.items()}
    found = other._step({}, tf.constant([1, 0]), tf.constant(0.75), tf.constant(0.0))
    size = sum(int(np.prod(weight.shape)) for weight in weights)
    assert float(found["grad_norm"]) == pytest.approx(1000 * size**0.5, rel=1e-4)
    given = [np.square(g).sum() for opt in other.optimizers for g in opt.given.values()]
    assert len(given) == len(weights)
    assert sum(given) ** 0.5 == pytest.approx(other.config.train.clip_norm, rel=1e-4)
    try:
        for name, variable in other.ema.items():
            expected = 0.75 * before[name] + 0.25 * np.asarray(other.named[name])
            np.testing.assert_allclose(variable, expected, atol=1e-6)
    finally:
        for name, variable in other.ema.items():
            variable.assign(before[name])


def test_only_kernels_decay() -> None:
    """What does not learn shrinks by the rate times the decay, but for biases and norms."""
    trainer = make_trainer()
    before = {weight.path: np.asarray(weight).copy() for weight in trainer.fast}
    optimizer = trainer.optimizers[1]
    optimizer.learning_rate.assign(0.5)
    optimizer.apply([tf.zeros_like(weight.value) for weight in trainer.fast], trainer.fast)
    kept = 1 - 0.5 * trainer.config.train.weight_decay
    assert 0 < kept < 1
    seen = set()
    for weight in trainer.fast:
        kind = weight.path.rsplit("/", 1)[1]
        seen.add(kind)
        share = 1 if kind in ("bias", "beta", "gamma") else kept
        np.testing.assert_allclose(weight, before[weight.path] * share, rtol=1e-5, atol=1e-8)
    assert {"kernel", "bias", "gamma", "beta"} <= seen


def test_a_batch_that_replicas_cannot_share(monkeypatch: pytest.MonkeyPatch) -> None:
    config = from_dict({"train": {"batch_size": 4}})
    strategy = SimpleNamespace(num_replicas_in_sync=3)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    with pytest.raises(ConfigError, match="batch_size is 4, which 3 replicas cannot share evenly"):
        Trainer(None, config, total_steps=4)  # type: ignore[arg-type]
