"""What each of several replicas does, without starting any."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from edgemask_convert.training import distribution
from edgemask_convert.training.distribution import (
    DistributionError,
    check_agreement,
    divide,
    image_noise,
    make_strategy,
    synchronize_batch_norm,
    total,
)


class Replica:
    """One of two that see the same."""

    num_replicas_in_sync = 2

    def __init__(self, number: int) -> None:
        self.replica_id_in_sync_group = number

    def all_reduce(self, kind: tf.distribute.ReduceOp, value: tf.Tensor) -> tf.Tensor:
        return 2 * value if kind == tf.distribute.ReduceOp.SUM else value


def test_each_image_gets_the_numbers_that_one_process_would_give_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seed = tf.constant([3, 4])
    whole = tf.random.stateless_uniform((4, 5), seed, -1.0, 2.0)
    for number, part in enumerate((whole[:2], whole[2:])):
        monkeypatch.setattr(tf.distribute, "get_replica_context", lambda n=number: Replica(n))
        np.testing.assert_array_equal(image_noise((2, 5), seed, -1.0, 2.0), part)


def test_a_total_is_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: Replica(0))
    assert float(total(tf.constant(3.0))) == 6


def test_batch_norm_is_told() -> None:
    inputs = keras.Input((4,))
    norm = keras.layers.BatchNormalization()
    synchronize_batch_norm([keras.Model(inputs, norm(keras.layers.Dense(3)(inputs)))])
    assert norm.synchronized


class Devices:
    """A strategy of two devices in the second of two processes: replicas 2 and 3."""

    num_replicas_in_sync = 4

    def experimental_distribute_values_from_function(self, value: Any) -> list[Any]:
        return [value(Replica(number)) for number in (2, 3)]


def test_a_process_divides_its_images_among_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "workers", lambda strategy: (1, 2))
    found = divide(Devices(), {"a": np.arange(6), "b": np.ones((6, 2))})  # type: ignore[arg-type]
    assert [part.numpy().tolist() for part in found["a"]] == [[0, 1, 2], [3, 4, 5]]
    assert [part.shape for part in found["b"]] == [(3, 2), (3, 2)]


class Workers:
    """A strategy of three processes of two devices; one of them has another value of a fact."""

    num_replicas_in_sync = 6

    def __init__(self, worker: int, fact: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worker, self.fact = worker, fact
        monkeypatch.setattr(distribution, "workers", lambda strategy: (0, 3))
        monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: self)

    def run(self, function: Any) -> Any:
        return function()

    def all_gather(self, mine: tf.Tensor, axis: int) -> tf.Tensor:
        rows = np.repeat(mine.numpy(), 6, axis)
        if self.worker:
            rows[2 * self.worker : 2 * self.worker + 2, self.fact] -= 1
        return tf.constant(rows)

    def experimental_local_results(self, value: Any) -> list[Any]:
        return [value]


FACTS = {"configuration": {"a": 1}, "seed": 3}


@pytest.mark.parametrize(("worker", "fact"), [(1, "seed"), (2, "configuration")])
def test_the_worker_that_differs_is_named(
    worker: int, fact: str, monkeypatch: pytest.MonkeyPatch, eager: None
) -> None:
    strategy: Any = Workers(worker, list(FACTS).index(fact), monkeypatch)
    with pytest.raises(
        DistributionError, match=f"worker {worker} has another {fact} than worker 0"
    ):
        check_agreement(strategy, FACTS)


def test_workers_that_agree(monkeypatch: pytest.MonkeyPatch, eager: None) -> None:
    strategy: Any = Workers(0, 0, monkeypatch)
    check_agreement(strategy, FACTS)


@pytest.mark.parametrize(
    ("gpus", "tf_config", "chosen"),
    [(0, "", "none"), (1, "", "none"), (2, "", "mirrored"), (2, "{}", "multiworker")],
)
def test_what_auto_chooses(
    gpus: int, tf_config: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config)
    devices = [SimpleNamespace(name=f"GPU:{n}") for n in range(gpus)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: devices)
    monkeypatch.setattr(distribution, "_check_tf_config", lambda text: None)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: "none")
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda names: "mirrored")
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: "multiworker")
    assert make_strategy("auto") == chosen


def test_a_strategy_of_another_name() -> None:
    with pytest.raises(DistributionError, match="'tpu' is not one of auto, none, mirrored"):
        make_strategy("tpu")
