"""What C++ writes to stderr is held back, and told when it may explain a failure."""

from __future__ import annotations

import os

import pytest
import tensorflow as tf
from edgemask_convert.quiet import held_back, import_tensorflow


def test_what_is_written_is_held_back(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before\n")
    with held_back():
        os.write(2, b"fully_quantize: 0\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"


def test_it_is_told_when_something_fails(capfd: pytest.CaptureFixture[str]) -> None:
    @held_back()
    def fail() -> None:
        os.write(2, b"the reason\n")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert capfd.readouterr().err == "the reason\n"


def test_warnings_of_tensorflow_about_its_use_are_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    import_tensorflow()
    built = tf.function(lambda x: x + 1)
    for number in range(8):  # another graph each time, about which it warns
        built(number)
    tf.get_logger().error("what is wrong is told")
    assert caplog.messages == ["what is wrong is told"]
