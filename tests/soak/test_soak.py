"""Twenty thousand frames while everything around the engine fails, and what that leaves behind.

Marked ``soak``: it needs mosquitto and paho-mqtt, and takes some minutes. Two rounds, one with
files that cannot be read and one with a live source that breaks, each with a new engine, web
server, MQTT client and watcher in this one process. Web clients come, read a little and go without
a word; the broker is killed and started again; the disk is full half of the time and the folder of
snapshots at its budget; the segmenter raises. One frame in a hundred goes through the real network,
the others through a stand-in that compares them with the empty scene.

Memory is fitted by one line per round with a common slope, after the first quarter of each round:
what the C library keeps for the threads of an engine differs from one engine to the next. Three
figures have a bound: what the C library has handed out and the number of Python's blocks, which a
leak would make grow, and the resident memory, which also grows in rare steps, when no gap in the
heap is large enough for what is wanted at that moment. Where one exceeds its bound, both rounds are
run again, twice at most: a leak grows every time.

``EDGEMASK_SOAK_FRAMES`` sets the number of frames of two rounds, ``EDGEMASK_SOAK_SECONDS`` the time
that they may take, ``EDGEMASK_SOAK_REPORT`` a file for the figures.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import dataclasses
import errno
import itertools
import json
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mosquitto import Broker, until
from synthetic import make_instances

from edgemask.errors import SourceError
from edgemask.instances import Instances
from edgemask.live.engine import Engine
from edgemask.segmenter import Segmenter
from edgemask.serve.server import Server
from edgemask.settings import EventSettings, MqttSettings, Settings, ZoneSettings
from edgemask.sinks import start_sinks
from edgemask.sources.base import Frame, Source
from edgemask.sources.synthetic import Synthetic
from edgemask.watch import store

pytest.importorskip("paho.mqtt.client")
pytestmark = pytest.mark.soak

FRAMES = int(os.environ.get("EDGEMASK_SOAK_FRAMES", "20000"))
ATTEMPTS = 3  # of two rounds each
SECONDS = float(os.environ.get("EDGEMASK_SOAK_SECONDS", "340"))
SIZE = (320, 240)
BUDGET = 100_000
# Per 1000 frames. Resident kB, of which a single step of the heap can make 150; kB in use, less
# than one frame that is not freed (230 kB); Python's blocks, less than one a frame.
MAX_SLOPES = (220.0, 150.0, 700.0)
Samples = array.array  # of frames, resident kB, kB in use, Python's blocks, again and again
REAL = 100  # one frame in so many
TALLY = {"full_disk": 0, "brokers_killed": 0, "clients": 0}


class Fragile(Source):
    """A scene without end that cannot always be read; a live one breaks and is opened again."""

    def __init__(self, generation: int, *, live: bool) -> None:
        super().__init__("fragile")
        self.live = live
        self._generation = generation
        self._scene = Synthetic(people=2, size=SIZE, fps=10, frames=None, seed=3)

    def read(self, timeout: float = 5.0) -> Frame | None:
        frame = None if self.closed else self._scene.read(timeout)
        if frame is not None and frame.index % 701 == 700:
            raise SourceError(f"frame {frame.index} is damaged: this is a test")
        return frame and dataclasses.replace(frame, name=f"{self._generation:06d}-{frame.name}")

    def _release(self) -> None:
        self._scene.close()


class Mixed:
    """Mostly a stand-in for a network, sometimes the network, and now and then an exception."""

    def __init__(self) -> None:
        self._network = Segmenter(threads=1, score_threshold=0.2)
        self.pack = self._network.pack
        self.score_threshold = 0.2
        self.timings: dict[str, float] = {}
        self.calls, self.network_calls = 0, 0
        with Synthetic(people=0, size=SIZE, seed=3) as empty:
            scene = empty.read()
        assert scene is not None
        self._wall = scene.rgb.astype(np.int16)

    def __call__(self, rgb: np.ndarray) -> Instances:
        self.calls += 1
        if self.calls % 499 == 0:
            raise RuntimeError("the network has failed: this is a test")
        if self.calls % REAL == 0:
            self.network_calls += 1
            self._network.score_threshold = self.score_threshold
            return self._network(rgb)
        mask = (np.abs(rgb - self._wall) > 60).any(axis=2)
        return make_instances(mask[None]) if mask.any() else Instances.empty(*mask.shape)


def talk(port: int, random_: random.Random) -> None:
    """Be one of the clients that a server on a network meets."""
    TALLY["clients"] += 1
    path = random_.choice(["/stream.mjpg", "/events", "/snapshot.jpg", "/status", "/metrics", "/"])
    kind = random_.random()
    with socket.create_connection(("127.0.0.1", port), 2) as client:
        client.settimeout(2)
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        if kind < 0.1:
            client.sendall(random_.randbytes(300))
        elif kind < 0.2:
            client.sendall(request[: len(request) // 2])
            time.sleep(0.05)
            return
        else:
            client.sendall(request)
        wanted = random_.choice([0, 1, 5_000, 60_000])
        while wanted > 0 and (data := client.recv(65536)):
            wanted -= len(data)


def resident_kb() -> int:
    """Return the memory of this process in kB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


class _Mallinfo2(ctypes.Structure):
    """What mallinfo2(3) returns: ten sizes in bytes."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks",
                     "uordblks", "fordblks", "keepcost")
    )  # fmt: skip


def in_use_kb() -> int:
    """Return what the C library has handed out and not got back, in kB.

    Unlike the resident memory, it does not count what the library keeps for later.
    """
    mallinfo2 = ctypes.CDLL(None).mallinfo2  # glibc 2.33
    mallinfo2.restype = _Mallinfo2
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd) // 1024


def settle(threads: int, files: int) -> dict[str, int]:
    """Wait until no more than these are left, and return what is left."""
    until(lambda: threading.active_count() <= threads and descriptors() <= files, 10)
    return {"threads": threading.active_count(), "descriptors": descriptors()}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def folder_bytes(folder: Path) -> int:
    """Return what a folder takes on the disk, temporary files included."""
    total = 0
    for path in folder.iterdir() if folder.exists() else ():
        with contextlib.suppress(FileNotFoundError):  # deleted or renamed meanwhile
            total += path.stat().st_blocks * 512
    return total


def children() -> int:
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread may end meanwhile
            found += (task / "children").read_text().split()
    return len(found)


@contextlib.contextmanager
def repeating(action: Callable[[], None], pause: float, count: int = 1) -> Iterator[None]:
    """Do something again and again in threads of its own; what goes wrong there is expected."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(pause):
            with contextlib.suppress(OSError):
                action()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


class Order:
    """Checks that results never come out of order."""

    def __init__(self, engine: Engine) -> None:
        self.inversions, self.seen = 0, 0
        self._box = engine.subscribe(8)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        sequence, name = -1, ""
        for result in self._box:
            self.inversions += result.sequence <= sequence or result.frame.name <= name
            self.seen += 1
            sequence, name = result.sequence, result.frame.name

    def stop(self) -> None:
        self._box.close()
        self._thread.join()


def slope_of(rounds: list[Samples], column: int) -> float:
    """Return how a figure grows per 1000 frames, the warm-up of each round left out."""
    products = squares = 0.0
    for samples in rounds:
        table = np.array(samples, np.float64).reshape(-1, 4)
        warm = table[table[:, 0] > table[-1, 0] / 4]
        x, y = warm[:, 0] / 1000, warm[:, column]
        products += ((x - x.mean()) * (y - y.mean())).sum()
        squares += ((x - x.mean()) ** 2).sum()
    return float(products / squares)


def settings(port: int, folder: Path) -> Settings:
    zone = ZoneSettings(
        "middle", ((0.3, 0.0), (0.7, 0.0), (0.7, 1.0), (0.3, 1.0)), inside="area", min_share=0.3,
        min_seconds=0.3, leave_seconds=0.2, cooldown=0,
    )  # fmt: skip
    return Settings(
        mqtt=MqttSettings(host="127.0.0.1", port=port, node="soak", max_rate=20),
        events=EventSettings(
            folder=folder, disk_budget=f"{BUDGET} B", keep_free="0", hook=("/bin/true",)
        ),
        zone=(zone,),
    )


def play(
    live: bool, frames: int, segmenters: list[Mixed], wanted: Settings, memory: Samples
) -> dict[str, Any]:
    """Run one engine with all that belongs to it, and return what it counted."""
    generations = itertools.count()
    engine = Engine(lambda: Fragile(next(generations), live=live), segmenters, backoff=(0.01, 0.1))
    order, dice = Order(engine), random.Random(0)
    server = Server(engine, port=0)
    sinks = start_sinks(engine, wanted, classes=["person"])
    largest = 0
    folder = wanted.events.folder
    assert folder is not None
    with repeating(lambda: talk(server.port, dice), 0.02, count=3):
        with server, engine:
            deadline = time.monotonic() + SECONDS / 2
            while (done := engine.status()["frames"]) < frames and time.monotonic() < deadline:
                time.sleep(0.5)
                memory.extend((done, resident_kb(), in_use_kb(), sys.getallocatedblocks()))
                engine.configure(score_threshold=dice.choice([0.2, 0.3]))
                largest = max(largest, folder_bytes(folder))
        order.stop()
        for sink in sinks:
            sink.stop()
    watch, mqtt = (sink.status() for sink in sinks)
    status = engine.status()
    return {
        "frames": status["frames"],
        "source_failures": status["source"]["failures"],
        "errors": status["errors"],
        "inversions": order.inversions,
        "results_checked": order.seen,
        "events": watch["events"],
        "snapshots_deleted": watch["disk"]["deleted"],
        "snapshots_failed": watch["disk"]["failed"],
        "folder_bytes": largest,
        "hooks": watch["hook"]["runs"],
        "messages": mqtt["sent"],
    }


def test_soak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = threading.Event()
    real_write = store._write_through

    def write(stream: Any, content: bytes) -> None:
        if full.is_set():
            TALLY["full_disk"] += 1
            stream.write(content[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_write(stream, content)

    monkeypatch.setattr(store, "_write_through", write)
    broker = Broker(tmp_path)

    def break_broker() -> None:
        broker.kill()
        TALLY["brokers_killed"] += 1
        time.sleep(1)
        broker.start()

    def toggle_disk() -> None:
        (full.clear if full.is_set() else full.set)()

    segmenters, rounds = [Mixed(), Mixed()], []  # two frames at a time
    samples: list[Samples] = []
    began = time.monotonic()
    with repeating(break_broker, 6), repeating(toggle_disk, 1.5):
        threads, files = threading.active_count(), descriptors()
        for _ in range(ATTEMPTS):
            for live in (False, True):
                memory = array.array("q")  # no list, which would itself grow by five blocks each
                wanted = settings(broker.port, tmp_path / "events")
                rounds.append(play(live, -(-FRAMES // 2), segmenters, wanted, memory))
                rounds[-1] |= settle(threads, files)
                samples.append(memory)
            slopes = [slope_of(samples[-2:], column) for column in (1, 2, 3)]
            if all(slope < most for slope, most in zip(slopes, MAX_SLOPES, strict=True)):
                break
    broker.kill()
    totals = {key: sum(r[key] for r in rounds) for key in rounds[0] if key not in
              ("threads", "descriptors", "folder_bytes")}  # fmt: skip
    report = {
        **totals,
        "attempts": len(rounds) // 2,
        "network_frames": sum(s.network_calls for s in segmenters),
        **TALLY,
        "folder_bytes_most": max(r["folder_bytes"] for r in rounds),
        "folder_budget": BUDGET,
        "rss_kb_quarters": [
            [m[1::4][len(m) // 4 * n // 4 - (n > 0)] for n in range(5)] for m in samples
        ],
        "rss_slope_kb_per_1000_frames": round(slopes[0], 2),
        "in_use_slope_kb_per_1000_frames": round(slopes[1], 2),
        "python_blocks_slope_per_1000_frames": round(slopes[2], 2),
        "threads": [threads, *(r["threads"] for r in rounds)],
        "descriptors": [files, *(r["descriptors"] for r in rounds)],
        "children_left": children(),
        "cpu_seconds": round(time.process_time()),
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(report, indent=2))
    if "EDGEMASK_SOAK_REPORT" in os.environ:
        Path(os.environ["EDGEMASK_SOAK_REPORT"]).write_text(json.dumps(report, indent=2) + "\n")

    assert sum(r["frames"] for r in rounds[-2:]) >= FRAMES, "too slow: see SECONDS"
    assert report["inversions"] == 0
    for slope, most in zip(slopes, MAX_SLOPES, strict=True):
        assert slope < most
    assert all(r["threads"] <= threads for r in rounds)
    assert all(r["descriptors"] <= files for r in rounds)
    assert report["children_left"] == 0
    assert report["folder_bytes_most"] <= BUDGET
    # That all of it has really happened:
    for happened in ("events", "snapshots_deleted", "full_disk", "brokers_killed", "hooks",
                     "messages", "errors", "source_failures", "network_frames"):  # fmt: skip
        assert report[happened] > 0, happened
