"""A hint from a network of any kind: what its feature maps say, the student's must say too.

:class:`.distill.Distillation` compares answers, so its teacher has the student's anchors and
classes. A hint (Romero et al. 2015, FitNets) compares what lies before the answers: a linear map of
the student's features must give the other network's. FitNets trains that map; here it is solved for
in every batch, so there is nothing to keep, and no width, anchor or class has to be the same. It
suits a network that has learnt from far more photographs than there are to train on.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from ..arch.model import MaskRCNN
from .distill import DistillError

LAST_OF_STRIDE_16 = "block_13_expand"  # what it reads is the trunk's last map of that stride
RIDGE = 1e-3  # of the mean variance: keeps the solution finite where channels say the same


def unexplained(ours: tf.Tensor, theirs: tf.Tensor) -> tf.Tensor:
    """Share of the variance of features that no linear map of others explains.

    Parameters
    ----------
    ours : (N, P)
    theirs : (N, Q), without a gradient; every channel counts alike

    Returns
    -------
    tf.Tensor
        Scalar from 0 (all is told) to 1 (nothing is).
    """
    x = ours - tf.reduce_mean(ours, 0)
    y = theirs - tf.reduce_mean(theirs, 0)
    y /= tf.math.reduce_std(y, 0) + 1e-3  # a channel that never changes stays nothing
    count = tf.cast(tf.shape(x)[0], tf.float32)
    own = tf.matmul(x, x, transpose_a=True) / count
    shared = tf.matmul(x, y, transpose_a=True) / count
    width = x.shape[-1]
    own += tf.eye(width) * (RIDGE * tf.stop_gradient(tf.linalg.trace(own)) / width + 1e-6)
    half = tf.linalg.triangular_solve(tf.linalg.cholesky(own), shared)
    variance = tf.reduce_sum(tf.square(y)) / count
    return 1.0 - tf.reduce_sum(tf.square(half)) / (variance + 1e-6)


class Hint:
    """The loss of a student's feature maps against those of a network of any kind.

    Maps of the same stride are compared: each of the student's pyramid, and the last of its trunk
    that has stride 16. The other network sees some crops twice as large as well; then its map of
    stride 16 is compared with the student's of stride 8.

    Parameters
    ----------
    teacher : MaskRCNN
        Its weights are only read.
    student : MaskRCNN
    closeups : int
        How many crops of a batch it also sees twice as large.

    Raises
    ------
    DistillError
        The two have no map of the same stride.
    """

    def __init__(self, teacher: MaskRCNN, student: MaskRCNN, closeups: int):
        self.strides = teacher.layout.features
        outputs = {name: teacher.first_stage.output[name] for name in self.strides}
        self.teacher = keras.Model(teacher.first_stage.input, outputs)
        self.closeups = closeups
        outputs = dict(student.first_stage.output)
        self.maps = list(student.layout.features.items())
        if any(layer.name == LAST_OF_STRIDE_16 for layer in student.first_stage.layers):
            outputs["trunk"] = student.first_stage.get_layer(LAST_OF_STRIDE_16).input
            self.maps.append(("trunk", 16))
        self.first_stage = keras.Model(student.first_stage.input, outputs)
        """The student's first stage, with the map of its trunk among the outputs."""
        if not {stride for _, stride in self.maps} & set(self.strides.values()):
            raise DistillError(
                f"the maps of --hint have strides {sorted(self.strides.values())}, the network's "
                f"{sorted({stride for _, stride in self.maps})}: none is the same"
            )

    def loss(self, image: tf.Tensor, ours: dict[str, tf.Tensor]) -> tf.Tensor:
        """Sum of what is unexplained over all pairs of maps.

        Parameters
        ----------
        image : (B, S, S, 3) normalised crops
        ours : dict
            Outputs of :attr:`first_stage` for them.

        Notes
        -----
        Each replica of a strategy solves for its own part of the batch.
        """
        parts = self._parts(image, ours, 1)
        if self.closeups:
            near = image[: self.closeups]
            near = tf.image.resize(near, (2 * near.shape[1], 2 * near.shape[2]))
            parts += self._parts(near, {n: v[: self.closeups] for n, v in ours.items()}, 2)
        return tf.add_n(parts) / tf.distribute.get_replica_context().num_replicas_in_sync

    def _parts(self, image, ours, zoom: int) -> list[tf.Tensor]:
        theirs = self.teacher(image, training=False)
        return [
            unexplained(_cells(ours[mine]), _cells(tf.stop_gradient(theirs[name])))
            for name, stride in self.strides.items()
            for mine, own in self.maps
            if own * zoom == stride
        ]


def _cells(values: tf.Tensor) -> tf.Tensor:
    """(B, H, W, C) → (B H W, C)."""
    return tf.reshape(values, (-1, values.shape[-1]))
