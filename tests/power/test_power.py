"""What is left of films, takes and events when the power fails.

Marked ``power``: it needs Linux, root, ext4 and PyAV. A file system in a file is told to stop at
once and to write nothing more, not even its journal (``FS_IOC_SHUTDOWN``, which is made for such
tests), while three programs write to it; then it is mounted anew. What a disk's own cache would
lose is not in it.

``EDGEMASK_POWER_CUTS`` sets the number of times.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgemask.sources import open_source
from edgemask.takes.durable import SECONDS
from edgemask.takes.reader import read_take
from edgemask.takes.times import timed, times_path

pytestmark = pytest.mark.power

CUTS = int(os.environ.get("EDGEMASK_POWER_CUTS", "4"))
PATIENCE = 2.0  # for a machine that is busy
FRAGMENT = 1.0  # of a film, see edgemask.mp4

_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
_AT_ONCE = 2  # not even the journal is written
_SCENE = "synthetic:?people=2&size=320x240&fps=12&frames=100000&live=1"
_ZONE = """
[events]
folder = {folder}
[[zone]]
name = "all"
polygon = [[0, 0], [1, 0], [1, 1], [0, 1]]
inside = "area"
min_seconds = 0
leave_seconds = 0.5
cooldown = 0
"""


class Disk:
    """A mounted file system whose power can be cut."""

    def __init__(self, folder: Path) -> None:
        self._image, self.root = folder / "disk.img", folder / "disk"
        self.root.mkdir()
        with open(self._image, "wb") as stream:
            stream.truncate(256 * 2**20)
        subprocess.run(["mkfs.ext4", "-q", self._image], check=True)
        if problem := self.mount():
            pytest.skip(f"this system cannot mount a file: {problem}")

    def mount(self) -> str:
        """Mount it; return why that did not work, or nothing."""
        command = ["mount", "-o", "loop", self._image, self.root]
        return subprocess.run(command, stderr=subprocess.PIPE, text=True).stderr.strip()

    def unmount(self) -> None:
        subprocess.run(["umount", self.root], check=True)

    def cut(self) -> int:
        """Stop everything; return the time, in nanoseconds since 1970."""
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            now = time.time_ns()
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _AT_ONCE))
        finally:
            os.close(descriptor)
        return now


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4")
    made = Disk(tmp_path)
    yield made
    made.unmount()


def start(folder: Path, verb: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Run a verb; what it prints goes to a file of its name, on a disk that is not cut."""
    command = [sys.executable, "-m", "edgemask", verb, *map(str, arguments)]
    with open(folder / verb, "wb") as out, open(folder / "errors", "ab") as errors:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors)


def written(root: Path) -> bool:
    """Whether all three have something to lose."""
    film, events = root / "film.mp4", root / "events" / "events.jsonl"
    sizes = [p.stat().st_size if p.exists() else 0 for p in (film, root / "take.jsonl", events)]
    return min(sizes) > 0


def lost(last_ns: int, cut_ns: int) -> float:
    """Seconds before the cut of which nothing is left."""
    return (cut_ns - last_ns) * 1e-9


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON Lines."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.mark.parametrize("number", range(CUTS))
def test_what_a_power_cut_leaves(disk: Disk, number: int, tmp_path: Path) -> None:
    pytest.importorskip("av")
    config = tmp_path / "zones.toml"
    config.write_text(_ZONE.format(folder=json.dumps(str(disk.root / "events"))))
    scene = f"{_SCENE}&seed={number}"
    programs = [
        start(tmp_path, "record", scene, "--out", disk.root / "film.mp4"),
        start(tmp_path, "track", scene, "--out", disk.root / "take.jsonl", "--threads", 1),
        start(tmp_path, "watch", scene, "--config", config),
    ]
    try:
        deadline = time.monotonic() + 60
        while not written(disk.root):
            said = (tmp_path / "errors").read_text()
            assert all(p.poll() is None for p in programs), said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        time.sleep(2 * SECONDS + random.Random(number).uniform(0, SECONDS))
        cut_ns = disk.cut()
    finally:
        for program in programs:
            program.send_signal(signal.SIGKILL)
            program.wait()
    disk.unmount()
    assert not disk.mount()

    with open_source(disk.root / "film.mp4") as source:
        filmed = list(timed(source, times_path(disk.root / "film.mp4")))
    tracked = list(read_take(disk.root / "take.jsonl"))
    for found, most in ((filmed, SECONDS + FRAGMENT), (tracked, SECONDS)):
        indices = [frame.index for frame in found]
        assert indices == sorted(set(indices))
        print(f"\n{len(found)} frames, lost {lost(found[-1].wall_ns, cut_ns):.2f} s", end="")
        assert lost(found[-1].wall_ns, cut_ns) < most + PATIENCE
    assert any(record.instances for record in tracked)

    events = disk.root / "events"
    kept = lines(events / "events.jsonl")
    told = [e for e in lines(tmp_path / "watch") if lost(e["wall_ns"], cut_ns) > PATIENCE]
    assert told
    assert {event["id"] for event in told} <= {event["id"] for event in kept}
    pictures = sorted(events.glob("*.jpg"))
    for picture in pictures:
        with Image.open(picture) as image:
            image.load()
    assert {e["snapshot"] for e in kept if e["snapshot"]} <= set(map(str, pictures))
    print(f"\n{len(kept)} events, {len(pictures)} snapshots", end="")
