"""The trunk against tf.keras' own MobileNetV2, with its BatchNorms folded away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from edgemask_convert.arch.backbone import (
    fold_batch_norm,
    freeze,
    load_initial_weights,
    mobilenet_v2,
    trunk_layers,
)

ALPHA = 0.35


def trunk(alpha: float = ALPHA, last_block: int = 15) -> keras.Model:
    """A fresh trunk."""
    image = keras.Input((None, None, 3))
    return keras.Model(image, mobilenet_v2(image, alpha, last_block))


def statistics(random: np.random.Generator, channels: int) -> dict[str, np.ndarray]:
    """Return BatchNorm weights that are far from neutral."""
    return {
        "gamma": random.uniform(0.5, 2, channels).astype(np.float32),
        "beta": random.normal(0, 1, channels).astype(np.float32),
        "moving_mean": random.normal(0, 1, channels).astype(np.float32),
        "moving_variance": random.uniform(0.1, 3, channels).astype(np.float32),
    }


@pytest.mark.parametrize("depthwise", [False, True])
def test_fold_batch_norm(depthwise: bool) -> None:
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (2, 9, 9, 6)).astype(np.float32)
    layer: Any = keras.layers.DepthwiseConv2D if depthwise else keras.layers.Conv2D
    arguments = (3,) if depthwise else (8, 3)
    plain, folded = layer(*arguments, use_bias=False), layer(*arguments)
    norm = keras.layers.BatchNormalization(epsilon=1e-3)
    expected = norm(plain(x))  # builds them
    stats = statistics(random, expected.shape[-1])
    norm.set_weights([stats[k] for k in ("gamma", "beta", "moving_mean", "moving_variance")])
    expected = norm(plain(x), training=False)
    folded.build(x.shape)
    folded.set_weights(list(fold_batch_norm(plain.get_weights()[0], stats, depthwise)))
    np.testing.assert_allclose(folded(x), expected, atol=1e-5)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    """tf.keras' MobileNetV2 with random statistics, and its weights as the npz that is read."""
    model = keras.applications.MobileNetV2((64, 64, 3), ALPHA, include_top=False, weights=None)
    random = np.random.default_rng(1)
    arrays = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            stats = statistics(random, layer.gamma.shape[0])
            layer.set_weights(list(stats.values()))
            arrays |= {f"{layer.name}/{key}": value for key, value in stats.items()}
        elif layer.weights:
            arrays[f"{layer.name}/kernel"] = layer.get_weights()[0]
    path = tmp_path_factory.mktemp("weights") / "weights.npz"
    np.savez(path, **arrays)
    return model, path


def test_equals_keras(reference: tuple[keras.Model, Path]) -> None:
    model, path = reference
    ours = trunk()
    filled = load_initial_weights(ours, path)
    assert len(filled) == len(trunk_layers(ours)) == 1 + 2 + 3 * 15
    layers = {
        "c2": "block_2_add",
        "c3": "block_6_expand_relu",
        "c4": "block_13_expand_relu",
        "c5": "block_15_add",
    }
    theirs = keras.Model(model.input, {k: model.get_layer(v).output for k, v in layers.items()})
    image = np.random.default_rng(2).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    expected, found = theirs(image), ours(image)
    for name, stride in (("c2", 4), ("c3", 8), ("c4", 16), ("c5", 32)):
        assert found[name].shape[1:3] == (64 // stride, 64 // stride)
        spread = float(np.std(expected[name]))
        assert spread > 0.1
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4 * spread)


def test_wrong_weights(reference: tuple[keras.Model, Path], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"block_1_project has shape .* the model needs .*another alpha"
    ):
        load_initial_weights(trunk(alpha=0.5), reference[1])
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"has no .*Conv1/kernel.*not MobileNetV2 weights"):
        load_initial_weights(trunk(), tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("blocks", "frozen"), [(-1, 0), (0, 1 + 2), (2, 1 + 2 + 2 * 3), (10, 1 + 2 + 10 * 3)]
)
def test_freeze(blocks: int, frozen: int) -> None:
    model = trunk()
    freeze(model, blocks)
    layers = trunk_layers(model)
    assert [layer.trainable for layer in layers] == [False] * frozen + [True] * (
        len(layers) - frozen
    )


def test_freeze_does_not_take_block_10_for_block_1() -> None:
    model = trunk()
    freeze(model, 1)
    assert model.get_layer("block_10_expand").trainable
    assert not model.get_layer("block_1_expand").trainable


@pytest.mark.parametrize(("last_block", "channels"), [(13, 56), (15, 56), (16, 112)])
def test_last_block(last_block: int, channels: int) -> None:
    model = trunk(last_block=last_block)
    assert model.output["c5"].shape[-1] == channels


@pytest.mark.parametrize("kind", ["text", "array", "truncated", "missing"])
def test_weights_that_cannot_be_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    if kind == "text":
        path.write_text("{}")
    elif kind == "array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "truncated":
        np.savez(path, a=np.zeros(1000))
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"weights\.npz cannot be read .*give an \.npz with"):
        load_initial_weights(trunk(), path)
