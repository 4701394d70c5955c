"""Training on several devices or machines that gives what one process gives.

A batch is divided among replicas. Whatever one process computes over the whole batch has to be
computed over all replicas then: BatchNorm's statistics, the counts that losses are divided by, and
random numbers, of which every image must get the ones it would have got. :func:`total`,
:func:`image_noise` and :func:`synchronize_batch_norm` do these three; the sum of the replicas'
losses, and of their gradients, is then that of a single process but for the order of additions.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

STRATEGIES = ("auto", "none", "mirrored", "multiworker")


class DistributionError(RuntimeError):
    """The devices or workers cannot train together; the message says why."""


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Choose how a step is divided. Call it before anything else runs in TensorFlow.

    Parameters
    ----------
    name : str
        ``none``: one process, one device. ``mirrored``: all GPUs of this machine, or its logical
        CPU devices. ``multiworker``: the machines that the environment variable ``TF_CONFIG``
        lists. ``auto``: ``multiworker`` if ``TF_CONFIG`` is set, else ``mirrored`` if there are
        several GPUs, else ``none``.

    Raises
    ------
    DistributionError
        ``TF_CONFIG`` is missing or wrong, or there is only one device to mirror on.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if name == "auto":
        name = "mirrored" if len(gpus) > 1 else "none"
        if os.environ.get("TF_CONFIG"):
            name = "multiworker"
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "multiworker":
        _check_tf_config(os.environ.get("TF_CONFIG"))
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name != "mirrored":
        raise DistributionError(f"strategy {name!r} is not one of {', '.join(STRATEGIES)}")
    devices = tf.config.list_logical_devices("GPU" if gpus else "CPU")
    if len(devices) < 2:
        raise DistributionError(
            f"there is one device only ({devices[0].name}), nothing to mirror on: use --strategy "
            "none, or multiworker for several machines"
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _check_tf_config(text: str | None) -> None:
    """Refuse what TensorFlow would wait for in vain, or answer with a long trace."""
    example = (
        '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    if not text:
        raise DistributionError(f"TF_CONFIG is not set: give each worker its own, e.g. {example}")
    try:
        config = json.loads(text)
        workers, task = config["cluster"]["worker"], config["task"]
        fits = task["type"] == "worker" and task["index"] in range(len(workers))
    except (ValueError, KeyError, TypeError) as error:
        raise DistributionError(
            f"TF_CONFIG cannot be read ({type(error).__name__}: {error}): it must look like "
            f"{example}"
        ) from error
    if not fits:
        raise DistributionError(
            f"TF_CONFIG has task {task} and {len(workers)} workers: the type must be worker and "
            f"the index 0 to {len(workers) - 1}; the first worker is the one that writes files"
        )


def workers(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Index of this process and number of processes; process 0 is the one that writes files."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or not resolver:
        return 0, 1
    return resolver.task_id or 0, len(resolver.cluster_spec().as_dict()["worker"])


def total(value: tf.Tensor) -> tf.Tensor:
    """Sum over all replicas, inside a step; `value` itself where there is one."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return value
    # An argument of the step has no device of its own, which all_reduce asks for.
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))


def image_noise(shape, seed, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """Uniform random numbers for this replica's images, inside a step.

    Parameters
    ----------
    shape : (B, …), B being the images of this replica
    seed : (2,) int32
    low, high : range

    Returns
    -------
    tf.Tensor
        These images' part of what one process would draw for the whole batch.
    """
    context = tf.distribute.get_replica_context()
    count = context.num_replicas_in_sync
    if count == 1:
        return tf.random.stateless_uniform(shape, seed, low, high)
    shape = tf.convert_to_tensor(shape)
    whole = tf.random.stateless_uniform(
        tf.concat([shape[:1] * count, shape[1:]], 0), seed, low, high
    )
    start = tf.cast(context.replica_id_in_sync_group, tf.int32) * shape[0]
    return whole[start : start + shape[0]]


def synchronize_batch_norm(models: Iterable[keras.Model]) -> None:
    """Let BatchNorm take its statistics over the images of all replicas."""
    for model in models:
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


def divide(
    strategy: tf.distribute.Strategy, batch: Mapping[str, Any]
) -> dict[str, tf.Tensor | tf.distribute.DistributedValues]:
    """Divide this process's images evenly among its devices."""
    tensors = {key: tf.convert_to_tensor(value) for key, value in batch.items()}
    here = strategy.num_replicas_in_sync // workers(strategy)[1]
    if here == 1:
        return tensors

    def part(value):
        pieces = tf.split(value, here)
        return strategy.experimental_distribute_values_from_function(
            lambda context: pieces[context.replica_id_in_sync_group % here]
        )

    return {key: part(value) for key, value in tensors.items()}


def check_agreement(strategy: tf.distribute.Strategy, facts: Mapping[str, Any]) -> None:
    """Compare what must be the same on all workers; every worker has to call it.

    Parameters
    ----------
    facts : mapping of str to anything with a JSON form
        The keys go into the message.

    Raises
    ------
    DistributionError
        Naming the first worker that differs, and in what.
    """
    if workers(strategy)[1] == 1:
        return
    digests = [
        hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:7]
        for value in facts.values()
    ]
    mine = tf.constant([[int.from_bytes(digest, "big") for digest in digests]], tf.int64)

    @tf.function
    def gather():
        return strategy.run(lambda: tf.distribute.get_replica_context().all_gather(mine, axis=0))

    found = strategy.experimental_local_results(gather())[0].numpy()
    replicas = strategy.num_replicas_in_sync // workers(strategy)[1]
    for column, what in enumerate(facts):
        for row, value in enumerate(found[:, column].tolist()):
            if value != found[0, column]:
                raise DistributionError(
                    f"worker {row // replicas} has another {what} than worker 0: start all with "
                    "the same command, on a folder that all can read"
                )
