"""What happens between the three networks: pure functions on arrays.

raw RPN outputs → :func:`proposals` → box head → :func:`detections` → mask head →
:func:`mask_probabilities`. All boxes here are in pixels of the network's input.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemask import boxes as bx
from edgemask.anchors import anchors_of
from edgemask.nms import batched_nms, nms_in_order
from edgemask.quant import dequantize, lookup, sigmoid, sigmoid_table, softmax, top_k

__all__ = ["Detections", "detections", "mask_probabilities", "proposals", "rescore"]

Floats = NDArray[np.float32]
Quantization = Callable[[str], tuple[float, int]]

MIN_SIDE = np.float32(1.0)  # smaller proposals hold no object that the network could see


class Detections(NamedTuple):
    """Boxes of the second stage, best first.

    Attributes
    ----------
    boxes : ndarray of float32, shape (N, 4)
    scores : ndarray of float32, shape (N,)
    classes : ndarray of int64, shape (N,), index into the pack's classes
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]


def proposals(
    outputs: Mapping[str, NDArray[Any]],
    quantization: Quantization,
    rpn: Mapping[str, Any],
    height: int,
    width: int,
) -> Floats:
    """Turn the RPN's raw outputs into proposals.

    Parameters
    ----------
    outputs : mapping of str to ndarray
        ``rpn_logits_L`` (1, H, W, A) and ``rpn_deltas_L`` (1, H, W, 4A) per level L, raw.
    quantization : callable
        Output name → (scale, zero point).
    rpn : mapping
        The pack's ``rpn`` section.
    height, width : int
        Size of the network's input.

    Returns
    -------
    ndarray of float32, shape (N, 4)
        At most ``post_nms`` boxes by descending objectness. Regions below ``score_threshold``,
        if the section has one, are left out: where little is to be seen, little is looked at.
    """
    levels: Sequence[str] = rpn["levels"]
    logits = [outputs[f"rpn_logits_{level}"] for level in levels]
    chosen, best = top_k(
        logits, [quantization(f"rpn_logits_{level}") for level in levels], rpn["pre_nms"]
    )
    if threshold := rpn.get("score_threshold", 0.0):
        lowest = math.log(threshold / (1.0 - threshold))
        chosen = chosen[: np.count_nonzero(best >= lowest)]
    names = [f"rpn_deltas_{level}" for level in levels]
    raw = np.concatenate([outputs[name].reshape(-1, 4) for name in names])
    counts = tuple(logit.size for logit in logits)
    zero_points, scales = _codes(counts, tuple(quantization(name) for name in names))
    deltas = raw.take(chosen, axis=0).astype(np.float32)
    deltas -= zero_points.take(chosen)[:, None]
    deltas *= scales.take(chosen)[:, None]
    anchors = anchors_of(rpn, [logit.shape[1:3] for logit in logits]).take(chosen, axis=0)
    decoded = bx.clip(bx.decode(deltas, anchors, rpn["box_weights"]), height, width)
    visible = (decoded[:, 2:] - decoded[:, :2] >= MIN_SIDE).all(axis=1)
    if not visible.all():
        decoded = decoded[visible]
    # The best logit comes first, so there is nothing to sort.
    return decoded.take(nms_in_order(decoded, rpn["nms_threshold"], rpn["post_nms"]), axis=0)


@functools.lru_cache(maxsize=16)
def _codes(counts: tuple[int, ...], params: tuple[tuple[float, int], ...]) -> tuple[Floats, Floats]:
    """Return the zero point and the scale of every anchor's deltas, level after level."""
    scales, zero_points = np.array(params, np.float32).T
    return np.repeat(zero_points, counts), np.repeat(scales, counts)


def detections(
    logits: NDArray[Any],
    deltas: NDArray[Any],
    quantization: Quantization,
    rois: Floats,
    settings: Mapping[str, Any],
    height: int,
    width: int,
    score_threshold: float,
    max_detections: int,
) -> Detections:
    """Turn the box head's raw outputs into detections.

    Parameters
    ----------
    logits, deltas : ndarray, raw
        Logits (N, C), one sigmoid per class; or, where ``activation`` is ``softmax``, (N, 1 + C)
        with the background first. Deltas (N, 4), the same for all classes; or, where
        ``class_agnostic`` is false, (N, 4C).
    quantization : callable
        ``logits`` / ``deltas`` → (scale, zero point).
    rois : ndarray of float32, shape (N, 4)
    settings : mapping
        The pack's ``detections`` section.
    height, width : int
        Size of the network's input.
    score_threshold : float
    max_detections : int
    """
    if settings.get("activation") == "softmax":
        scores = softmax(dequantize(logits, *quantization("logits")))[:, 1:]
    else:
        scores = _probabilities(logits, quantization)
    roi, classes = np.nonzero(scores >= score_threshold)
    if settings.get("class_agnostic", True):
        own = deltas[roi]
    else:
        own = deltas.reshape(len(rois), -1, 4)[roi, classes]
    steps = dequantize(own, *quantization("deltas"))
    refined = bx.clip(bx.decode(steps, rois[roi], settings["box_weights"]), height, width)
    kept_scores = scores[roi, classes]
    kept = batched_nms(
        refined, kept_scores, classes, settings["nms_threshold"], max_output=max_detections
    )
    return Detections(refined[kept], kept_scores[kept], classes[kept])


def mask_probabilities(
    logits: NDArray[Any],
    quantization: Quantization,
    classes: NDArray[np.int64],
    class_agnostic: bool,
) -> Floats:
    """Select each detection's channel and apply the sigmoid.

    Parameters
    ----------
    logits : ndarray, shape (N, S, S, K), raw
        K is 1 or the number of classes.

    Returns
    -------
    ndarray of float32, shape (N, S, S), in [0, 1]
    """
    own = logits[..., 0] if class_agnostic else logits[np.arange(len(classes)), :, :, classes]
    return _probabilities(own, quantization)


def _probabilities(logits: NDArray[Any], quantization: Quantization) -> Floats:
    """Apply the sigmoid to a head's raw logits, int8 or float32, of any shape."""
    if logits.dtype == np.int8:
        return lookup(logits, sigmoid_table(*quantization("logits")))
    return sigmoid(logits)


def rescore(scores: Floats, probabilities: Floats, threshold: float) -> Floats:
    """Multiply each score by the mean probability inside its mask.

    A mask that the network is unsure of is seldom a good one (the mask score of PANet and
    SOLO); it raises mask AP for the price of one mean.

    Parameters
    ----------
    scores : ndarray of float32, shape (N,)
    probabilities : ndarray of float32, shape (N, S, S)
    threshold : float
        Cells at or above it are inside.

    Returns
    -------
    ndarray of float32, shape (N,)
    """
    inside = probabilities >= threshold
    count = inside.sum(axis=(1, 2), dtype=np.float32)
    # A sum of float32 in double precision is exact here, so the order in which a machine adds does
    # not show in the score.
    total = np.einsum("nij,nij->n", probabilities, inside, dtype=np.float64)
    mean: Floats = total.astype(np.float32) / np.maximum(count, np.float32(1))
    return scores * mean
