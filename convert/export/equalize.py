"""Equal ranges for the channels of a tensor, so that its one int8 scale suits them all.

A channel that never comes near the tensor's maximum uses a few of its 256 levels. Its layer can be
multiplied by a factor and the layers that read it divided by the same: a ReLU in between does not
mind, a ReLU6 neither where the channel stays below 6. The network computes what it did before, and
int8 loses less (cross-layer equalization, Nagel et al. 2019, with ranges of activations in the
place of weights, which have a scale per channel anyway).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

__all__ = ["equalize"]

CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)
STRENGTH = 0.7  # of what would make ranges equal; the whole of it coarsens the readers' weights
MOST = 8.0
MARGIN = 1.1  # other images go higher than those of the calibration
Uses = dict[str, list[Any]]  # of each layer by name: the nodes of Keras' graph where it is applied


@dataclass
class Link:
    """A convolution, what follows it, and the layers that read the result.

    Attributes
    ----------
    layer : Conv2D or DepthwiseConv2D
    tensors : list
        What is read, one for each time that the layer is applied.
    norm : BatchNormalization or None
    limit : float or None
        Of the ReLU, if there is one that has a limit.
    readers : list of layers
        Convolutions, none twice.
    """

    layer: keras.Layer
    tensors: list[Any] = field(default_factory=list)
    norm: keras.Layer | None = None
    limit: float | None = None
    readers: list[keras.Layer] = field(default_factory=list)


def equalize(model: keras.Model, samples: Iterable[np.ndarray]) -> dict[str, float]:
    """Change the weights of `model` so that the channels between its convolutions are level.

    Parameters
    ----------
    model : keras.Model
        A functional model; changed in place. Its outputs, and what is added or concatenated
        inside, keep their ranges.
    samples : iterable of arrays
        Inputs of `model`, of the kind that int8 is calibrated on.

    Returns
    -------
    dict of str to float
        Greatest factor of each convolution whose channels were levelled.
    """
    links = find_links(model)
    if not links:
        return {}
    watched = keras.Model(model.input, [t for link in links for t in link.tensors])
    peaks: list[np.ndarray] | None = None
    for sample in samples:
        found = tf.nest.flatten(watched(sample, training=False))
        new = [np.abs(np.asarray(value)).max(axis=(0, 1, 2)) for value in found]
        peaks = new if peaks is None else list(map(np.maximum, peaks, new))
    if peaks is None:
        raise ValueError("no samples to equalize with: give some images")
    factors = {}
    position = 0
    for link in links:
        own = np.max(peaks[position : position + len(link.tensors)], axis=0)
        position += len(link.tensors)
        factor = channel_factors(own, link.limit)
        _multiply(link, factor)
        factors[link.layer.name] = float(factor.max())
    return factors


def channel_factors(peaks: np.ndarray, limit: float | None) -> np.ndarray:
    """Factor of each channel from its greatest absolute value, at least 1.

    Parameters
    ----------
    peaks : (C,)
    limit : float or None
        What the channels are clamped to; None: the greatest of them counts.
    """
    top = peaks.max() if limit is None else limit
    room = top / np.maximum(peaks * MARGIN, 1e-6)
    return np.clip(room**STRENGTH, 1.0, MOST).astype(np.float32)


def find_links(model: keras.Model) -> list[Link]:
    """Return the convolutions whose results only convolutions read, in the order of the layers."""
    outputs = {id(tensor) for tensor in tf.nest.flatten(model.output)}
    # Other models that share the layers, such as a part of this one, have given them more nodes.
    known = {id(node) for nodes in model._nodes_by_depth.values() for node in nodes}
    uses = {
        layer.name: [node for node in layer._inbound_nodes if id(node) in known]
        for layer in model.layers
    }
    readers: dict[int, list[keras.Layer]] = {}
    for layer in model.layers:
        for node in uses[layer.name]:
            for tensor in node.input_tensors:
                readers.setdefault(id(tensor), []).append(layer)
    links = []
    for layer in model.layers:
        if isinstance(layer, CONVOLUTIONS):
            link = Link(layer)
            if all(_follow(node.output_tensors[0], link, readers, uses, outputs)
                   for node in uses[layer.name]) and _alone(link, uses):  # fmt: skip
                links.append(link)
    return links


def _alone(link: Link, uses: Uses) -> bool:
    """Whether the readers read nothing else, which would be divided too."""
    own = {id(tensor) for tensor in link.tensors}
    return all(
        id(tensor) in own
        for reader in link.readers
        for node in uses[reader.name]
        for tensor in node.input_tensors
    )


def _follow(
    tensor: Any,
    link: Link,
    readers: dict[int, list[keras.Layer]],
    uses: Uses,
    outputs: set[int],
) -> bool:
    """Follow one use of the layer to its readers; False if they cannot be divided."""
    rectified = False
    while id(tensor) not in outputs:
        found = readers.get(id(tensor), [])
        after = found[0] if len(found) == 1 and len(uses[found[0].name]) == 1 else None
        if isinstance(after, layers.BatchNormalization) and link.norm is None and not rectified:
            if len(uses[link.layer.name]) > 1:
                return False  # one norm of several: the factor has no one place
            link.norm = after
        elif isinstance(after, layers.ReLU) and not rectified:
            rectified = True
            if after.max_value is not None:  # the lowest limit of all uses
                link.limit = min(after.max_value, link.limit or after.max_value)
        else:
            link.tensors.append(tensor)
            link.readers += [layer for layer in found if layer not in link.readers]
            return bool(found) and all(isinstance(layer, CONVOLUTIONS) for layer in found)
        tensor = uses[after.name][0].output_tensors[0]
    return False


def _multiply(link: Link, factor: np.ndarray) -> None:
    """Multiply the channels of a link, and divide them where they are read."""
    if link.norm is not None:
        for weight in (link.norm.gamma, link.norm.beta):
            weight.assign(np.asarray(weight) * factor)
    else:
        depthwise = isinstance(link.layer, layers.DepthwiseConv2D)
        shape = (1, 1, -1, 1) if depthwise else (1, 1, 1, -1)
        link.layer.kernel.assign(np.asarray(link.layer.kernel) * factor.reshape(shape))
        if link.layer.use_bias:
            link.layer.bias.assign(np.asarray(link.layer.bias) * factor)
    for reader in link.readers:  # input channels are the third axis of both kinds
        reader.kernel.assign(np.asarray(reader.kernel) / factor.reshape(1, 1, -1, 1))
