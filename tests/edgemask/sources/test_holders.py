"""Who holds a device, from a proc file system of our own and from the real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgemask.sources.holders import Holder, describe_holders, holders


def add_process(proc: Path, pid: int, name: str, *files: str) -> None:
    folder = proc / str(pid) / "fd"
    folder.mkdir(parents=True)
    (folder.parent / "comm").write_text(f"{name}\n")
    for number, target in enumerate(files):
        (folder / str(number)).symlink_to(target)


def is_video(path: str) -> bool:
    return path.startswith("/dev/video")


def test_holders(tmp_path):
    add_process(tmp_path, 20, "motion", "/dev/null", "/dev/video1", "/dev/video0", "/dev/video0")
    add_process(tmp_path, 3, "bash", "/dev/tty", "/home/me/video0", "pipe:[12]")
    add_process(tmp_path, 7, "cheese", "/dev/video0")
    (tmp_path / "meminfo").write_text("")
    (tmp_path / "99").mkdir()  # a process that has just ended
    assert holders(is_video, tmp_path) == [
        Holder(7, "cheese", ("/dev/video0",)),
        Holder(20, "motion", ("/dev/video0", "/dev/video1")),
    ]


def test_a_file_that_was_closed_meanwhile(tmp_path, monkeypatch):
    add_process(tmp_path, 7, "cheese", "/dev/null", "/dev/video0")
    readlink = os.readlink

    def closed(path):
        if str(path).endswith("/0"):
            raise FileNotFoundError(2, "No such file or directory", path)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", closed)
    assert holders(is_video, tmp_path) == [Holder(7, "cheese", ("/dev/video0",))]


def test_description():
    found = [Holder(7, "cheese", ("/dev/video0",)), Holder(20, "motion", ("/dev/video1",))]
    assert describe_holders(found) == (
        "cheese (pid 7) holds /dev/video0, motion (pid 20) holds /dev/video1: stop it first"
    )
    assert "sudo fuser -v" in describe_holders([])
    own = Holder(os.getpid(), "python3", ("/dev/video0",))
    assert describe_holders([found[0], own]).startswith(f"this process (pid {own.pid})")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_the_real_proc():
    with open("/dev/zero", "rb"):
        found = holders(lambda path: path == "/dev/zero")
    (own,) = [holder for holder in found if holder.pid == os.getpid()]
    assert own.devices == ("/dev/zero",)
    assert own.name == Path("/proc/self/comm").read_text().strip()
