"""Keeping from stderr what TensorFlow writes about absent devices and its own inner workings."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, by C++ too; tell it if something fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except BaseException:
            file.seek(0)
            os.write(kept, file.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def import_tensorflow() -> None:
    """Import it, and let it look for devices, which it also reports on; keep its warnings back.

    They are about its own use by this program, such as graphs that it builds again.
    """
    with contextlib.suppress(ImportError), held_back():
        import tensorflow as tf

        tf.config.list_physical_devices()
        tf.get_logger().setLevel("ERROR")
