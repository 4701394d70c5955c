"""What reading photographs in several threads needs: their sizes, and quiet."""

from __future__ import annotations

import math
import os
import threading
import warnings

from synthetic import png_header

from edgemask import images
from edgemask.images import megapixels


def test_megapixels_are_read_from_the_header(tmp_path, scene):
    (tmp_path / "huge.png").write_bytes(png_header(20_000, 10_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert megapixels(tmp_path / "huge.png") == 0  # more than Pillow opens
        (tmp_path / "large.png").write_bytes(png_header(12_000, 10_000))
        assert megapixels(tmp_path / "large.png") == 120
    scene.save(tmp_path / "small.png")
    assert megapixels(tmp_path / "small.png") == 64 * 48 / 1e6
    assert megapixels(tmp_path / "none.png") == 0
    assert megapixels(tmp_path) == 0
    assert megapixels("a\0b") == 0


def test_a_pipe_is_left_to_whoever_decodes_it(tmp_path) -> None:
    """What is read of it is gone, and after its end opening it would wait for another writer."""
    os.mkfifo(tmp_path / "photo.png")
    assert megapixels(tmp_path / "photo.png") == math.inf


def test_threads_that_read_at_the_same_time_leave_the_filters_as_they_were():
    before = list(warnings.filters)
    first_in, second_in, first_out = (threading.Event() for _ in range(3))
    said = []

    def first():
        with images._QUIET:
            first_in.set()
            second_in.wait(5)
        first_out.set()

    def second():
        first_in.wait(5)
        with images._QUIET:
            second_in.set()
            first_out.wait(5)
            with warnings.catch_warnings(record=True) as caught:
                warnings.warn("odd metadata", stacklevel=1)
            said.extend(caught)

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert first_out.is_set()
    assert said == []
    assert warnings.filters == before
