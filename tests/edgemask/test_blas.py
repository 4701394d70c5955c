"""NumPy's BLAS has one thread while a frame is computed, and what it had before and after."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from edgemask import blas
from edgemask.blas import ONE_THREAD
from edgemask.segmenter import Segmenter


def number() -> set[int]:
    return {get() for get, _ in blas._libraries()}


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    np.ones((2, 2)) @ np.ones((2, 2))
    if not blas._libraries():
        pytest.skip("NumPy has no OpenBLAS here, or there is no /proc")
    before = [get() for get, _ in blas._libraries()]
    for _, put in blas._libraries():
        put(2)
    if number() != {2}:
        pytest.skip("OpenBLAS was built for one thread")
    yield
    for (_, put), threads in zip(blas._libraries(), before, strict=True):
        put(threads)


def test_inside_and_outside() -> None:
    with ONE_THREAD:
        assert number() == {1}
        with ONE_THREAD:
            assert number() == {1}
        assert number() == {1}
    assert number() == {2}


def test_an_error_restores_it() -> None:
    with pytest.raises(ZeroDivisionError), ONE_THREAD:
        raise ZeroDivisionError
    assert number() == {2}


def test_the_last_of_several_threads_restores_it() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with ONE_THREAD:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with ONE_THREAD:
        thread.start()
        assert entered.wait(10)
    assert number() == {1}
    leave.set()
    thread.join()
    assert number() == {2}


def test_many_threads_leave_it_as_it_was() -> None:
    def work() -> None:
        for _ in range(300):
            with ONE_THREAD:
                assert number() == {1}

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert number() == {2}


def test_a_segmenter_takes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    segmenter = Segmenter("people-lite", threads=1)
    run = type(segmenter._pipeline).__call__

    def watched(self, *arguments):
        seen.update(number())
        return run(self, *arguments)

    monkeypatch.setattr(type(segmenter._pipeline), "__call__", watched)
    segmenter(np.zeros((64, 64, 3), np.uint8))
    assert seen == {1}
    assert number() == {2}


def test_without_numpy_there_is_nothing_to_set() -> None:
    code = "from edgemask import blas\nprint(blas._libraries())\nwith blas.ONE_THREAD: pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
