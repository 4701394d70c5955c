"""Write the graphs that resize an image in the runtime. Needs TensorFlow.

    python tests/data/make_shrink.py

writes ``edgemask/assets/shrink1.tflite`` and ``shrink2.tflite``. Where a number in them depends on
the sizes of the image and of the result, a marker stands in its place (``edgemask/shrink.py`` has
their list): a graph is converted for two sets of sizes, and what differs are those numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from edgemask.shrink import MARKERS, numbers

ASSETS = Path(__file__).resolve().parents[2] / "edgemask" / "assets"
# Height and width; rows, and rows between the two steps; columns and those between.
SIZES = ((1009, 1013, 331, 541, 431, 653), (1019, 1021, 337, 547, 433, 659))


def resize_rows(x: tf.Tensor, *rows: int) -> tf.Tensor:
    """Resize (1, H, 1, C) to each number of rows in turn."""
    for number in rows:
        x = tf.compat.v1.image.resize_bilinear(x, [number, 1], half_pixel_centers=True)
    return x


def convert(steps: int, sizes: tuple[int, ...]) -> np.ndarray:
    """Return the words of the int8 graph that resizes each axis in so many steps."""
    height, width, rows, rows_between, columns, columns_between = sizes

    def shrink(x: tf.Tensor) -> tf.Tensor:
        x = tf.reshape(resize_rows(x, *(rows_between, rows)[-steps:]), [rows, width, 3])
        x = tf.reshape(tf.transpose(x, [1, 0, 2]), [1, width, 1, 3 * rows])
        x = resize_rows(x, *(columns_between, columns)[-steps:])
        x = tf.reshape(x, [columns, rows, 3])
        return tf.transpose(x, [1, 0, 2])

    shape = (1, height, 1, 3 * width)
    function = tf.function(shrink, input_signature=[tf.TensorSpec(shape, tf.float32, name="x")])

    def extremes() -> Iterator[list[np.ndarray]]:
        for value in (-1.0, 127 / 128):
            yield [np.full(shape, value, np.float32)]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = extremes
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return np.frombuffer(converter.convert(), "<i4")


def main() -> None:
    """Write both."""
    for steps in (1, 2):
        first, second = (convert(steps, sizes) for sizes in SIZES)
        words = first.copy()
        marked = dict(zip(numbers(*SIZES[0]), MARKERS, strict=True))
        for position in np.flatnonzero(first != second).tolist():
            # The converter's own checksum differs as well, and nobody reads it.
            words[position] = marked.get(int(first[position]), words[position])
        path = ASSETS / f"shrink{steps}.tflite"
        path.write_bytes(words.tobytes())
        print(f"{path}: {words.nbytes} bytes, {np.count_nonzero(first != second)} markers")


if __name__ == "__main__":
    main()
