"""What is written is on the disk soon after; .ci/legs/power cuts the power."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgemask.errors import OutputError
from edgemask.instances import Instances
from edgemask.sources.base import Frame
from edgemask.takes.durable import Durable
from edgemask.takes.writer import TakeWriter


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file or folder was synced, by name."""
    counts: Counter[str] = Counter()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        counts[Path(os.readlink(f"/proc/self/fd/{descriptor}")).name] += 1
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return counts


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="names descriptors by /proc")
def test_again_and_again_until_it_is_closed(tmp_path: Path, synced: Counter[str]) -> None:
    threads = threading.active_count()
    folder = tmp_path / "takes"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    (folder / "b").write_bytes(b"2")
    durable = Durable(0.001)
    durable.add(folder / "a")
    assert synced["takes"] == 1  # a file without a name is lost
    durable.add(folder / "b")
    until(lambda: synced["a"] > 3 and synced["b"] > 3)
    durable.close()
    assert threading.active_count() == threads
    before = synced["a"]
    durable.close()
    assert synced["a"] == before


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="names descriptors by /proc")
def test_closing_waits_for_the_disk(tmp_path: Path, synced: Counter[str]) -> None:
    (tmp_path / "a").write_bytes(b"1")
    durable = Durable(1000)
    durable.add(tmp_path / "a")
    durable.close()
    assert synced["a"] == 1


def test_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"1")
    durable = Durable(0.001)
    durable.add(tmp_path / "a")
    failing = threading.Event()

    def fsync(descriptor: int) -> None:
        failing.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    assert failing.wait(20)

    with pytest.raises(
        OutputError, match=r"/a cannot be written .Input/output error.: check the disk"
    ):
        until(durable.check)
    with pytest.raises(OutputError, match="Input/output error"):
        durable.close()


def refuse(descriptor: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_refusal_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()
    durable = Durable(60)
    durable.add(tmp_path / "a")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        durable._sync_all()
    with pytest.raises(OutputError, match="Input/output error"):
        durable.check()
    durable.check()
    durable.close()


def test_a_disk_that_refuses_later_ends_the_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TakeWriter(tmp_path / "a.jsonl") as written:
        first = Frame(np.zeros((48, 64, 3), np.uint8), 0, 0, 0, "a")
        written.add(first, Instances.empty(48, 64))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", refuse)
            written._durable._sync_all()
        with pytest.raises(OutputError, match="Input/output error"):
            written.add(first, Instances.empty(48, 64))


def test_a_file_system_without_such_a_thing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"1")

    def fsync(descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fsync)
    durable = Durable(1000)
    durable.add(tmp_path / "a")
    durable.close()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    durable = Durable()
    with pytest.raises(OutputError, match="nothing"):
        durable.add(tmp_path / "nothing")
    durable.close()
