"""Work on many images over a Ray cluster (extra ``[ray]``), with the result of a single process.

The driver reads the files and sends their bytes, so that the workers need no folder of images, and
it alone writes. Results come in any order, each with the key of its item. What an item raises on a
worker is raised here; a worker that dies is named and replaced, and its item given to another.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from edgemask import __version__
from edgemask.errors import RuntimeUnavailable

ATTEMPTS = 3  # workers that one item may cost


class ClusterError(RuntimeError):
    """The cluster cannot be used, or an item ends every worker that it is given to."""


class ClusterWarning(UserWarning):
    """A worker was lost and replaced, or none fits on a machine."""


@dataclass(frozen=True)
class Cluster:
    """Where to work.

    Attributes
    ----------
    address : str
        As ``ray.init`` takes it: ``auto``, ``HOST:6379``, ``ray://HOST:10001``, or ``local`` for
        a cluster of this machine.
    cpus : int
        CPUs of each worker; there are as many workers as fit.
    """

    address: str
    cpus: int = 2


@dataclass
class _Item:
    key: Hashable
    payload: Any
    attempts: int = 0


@dataclass
class _Hand:
    """A worker as the driver sees it."""

    actor: Any
    name: str = "a worker"
    item: _Item | None = None


class _Worker:
    """Runs on the cluster. Errors are returned: a raised one would lose its type on the way."""

    def place(self) -> tuple[str, int, str]:
        """Return host name, process id, and edgemask's version."""
        return socket.gethostname(), os.getpid(), __version__

    def start(self, make: Callable[[], Callable[[Any], Any]], cpus: int, slot: int, folder: str):
        """Make the function that works on payloads, on CPUs of its own."""
        with contextlib.suppress(AttributeError, OSError):  # not Linux, or not allowed
            mine = sorted(os.sched_getaffinity(0))
            first = slot * cpus % len(mine)
            os.sched_setaffinity(0, (mine + mine)[first : first + cpus])
        if folder not in sys.path:  # a module of the user's own is looked for where the driver is
            sys.path.append(folder)
        return self._guarded(self._start, make)

    def _start(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        self._work = make()

    def work(self, payload: Any):
        return self._guarded(self._work, payload)

    def _guarded(self, function: Callable[[Any], Any], argument: Any) -> tuple[bool, Any]:
        try:
            return True, function(argument)
        except Exception as error:
            return False, error


def cluster_map(
    cluster: Cluster,
    make: Callable[[], Callable[[Any], Any]],
    items: Iterable[tuple[Hashable, Any]],
) -> Iterator[tuple[Any, Any]]:
    """Yield (key, result) of every item, in the order in which they are done.

    Parameters
    ----------
    cluster : Cluster
    make : callable
        Called once on each worker; returns the function from a payload to its result. It is
        pickled, so what it refers to must be importable on the workers.
    items : iterable of (key, payload)
        Read as they are needed.

    Raises
    ------
    RuntimeUnavailable
        Ray is not installed.
    ClusterError
        No cluster answers, a worker has another edgemask, or an item ended `ATTEMPTS` workers.
    Exception
        What `make` or the function raised on a worker.
    """
    try:
        import ray
    except ImportError as error:
        raise RuntimeUnavailable(
            f"--ray needs Ray ({error}): pip install 'edgemask[ray]' here and on every machine"
        ) from error
    items = iter(items)
    first = next(items, None)
    if first is None:
        return
    items = chain([first], items)
    own = not ray.is_initialized()
    if own:
        _connect(ray, cluster.address)
    try:
        yield from _Driver(ray, cluster, make).run(items)
    finally:
        if own:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        first = " ".join(str(error).split())[:200]
        raise ClusterError(
            f"no Ray cluster answers at {address!r} ({first}): start one with ray start --head"
        ) from error


class _Driver:
    """Hands out items, one at a time to each worker."""

    def __init__(self, ray: Any, cluster: Cluster, make: Callable[[], Callable[[Any], Any]]):
        self.ray = ray
        self.cluster = cluster
        self.make = make
        self.remote = ray.remote(num_cpus=cluster.cpus, max_restarts=0)(_Worker)
        self.calls: dict[Any, tuple[_Hand, str]] = {}
        self.slots: dict[str, int] = {}
        self.again: deque[_Item] = deque()
        self.hands: list[_Hand] = []
        self.lost_at_start = 0
        self.dry = False  # the items have come to their end

    def run(self, items: Iterator[tuple[Hashable, Any]]) -> Iterator[tuple[Any, Any]]:
        self._warn_of_small_machines()
        free = self.ray.available_resources().get("CPU", 0)
        for _ in range(max(1, int(free // self.cluster.cpus))):
            self._hire()
        try:
            while not self.dry or self.again or any(hand.item for hand in self.hands):
                (call,), _ = self.ray.wait(list(self.calls), num_returns=1)
                hand, method = self.calls.pop(call)
                try:
                    answer = self.ray.get(call)
                except self.ray.exceptions.RayActorError as error:
                    self._lost(hand, error)
                    continue
                except self.ray.exceptions.RayError as error:
                    raise ClusterError(f"{hand.name} failed: {_last_line(error)}") from error
                if method == "place":
                    self._placed(hand, answer)
                    continue
                fine, value = answer
                if not fine:
                    raise value
                if method == "start":
                    self.lost_at_start = 0
                elif hand.item is not None:
                    key, hand.item = hand.item.key, None
                    self._give(hand, items)
                    yield key, value
                    continue
                self._give(hand, items)
        finally:
            for hand in self.hands:
                self.ray.kill(hand.actor)

    def _warn_of_small_machines(self) -> None:
        """Say it if no worker fits: Ray waits without a word. A cluster may yet grow."""
        machines = [node["Resources"].get("CPU", 0) for node in self.ray.nodes() if node["Alive"]]
        largest = max(machines, default=0)
        if largest < self.cluster.cpus:
            warnings.warn(
                f"no machine of the cluster has {self.cluster.cpus} CPUs, the largest has "
                f"{largest:g}: nothing happens until one with as many comes; or give a smaller "
                "--ray-cpus",
                ClusterWarning,
                stacklevel=3,
            )

    def _hire(self) -> None:
        hand = _Hand(self.remote.remote())
        self.hands.append(hand)
        self.calls[hand.actor.place.remote()] = hand, "place"

    def _placed(self, hand: _Hand, answer: tuple[str, int, str]) -> None:
        host, process, version = answer
        hand.name = f"worker {process} on {host}"
        if version != __version__:
            raise ClusterError(
                f"{hand.name} has edgemask {version}, not {__version__}: install the same on all"
            )
        slot = self.slots[host] = self.slots.get(host, -1) + 1
        call = hand.actor.start.remote(self.make, self.cluster.cpus, slot, os.getcwd())
        self.calls[call] = hand, "start"

    def _give(self, hand: _Hand, items: Iterator[tuple[Hashable, Any]]) -> None:
        """Give the next item to a worker that has none, if there is one left."""
        if self.again:
            hand.item = self.again.popleft()
        else:
            following = next(items, None)
            if following is None:
                self.dry = True
                return
            hand.item = _Item(*following)
        self.calls[hand.actor.work.remote(hand.item.payload)] = hand, "work"

    def _lost(self, hand: _Hand, error: Exception) -> None:
        self.hands.remove(hand)
        item = hand.item
        if item is None:
            self.lost_at_start += 1
            if self.lost_at_start >= ATTEMPTS:
                raise ClusterError(
                    f"{ATTEMPTS} workers died while they started, the last was {hand.name}: "
                    f"{_first_line(error)}"
                ) from error
            warnings.warn(f"{hand.name} died while it started", ClusterWarning, stacklevel=2)
        else:
            item.attempts += 1
            if item.attempts >= ATTEMPTS:
                raise ClusterError(
                    f"{item.key} ended {item.attempts} workers, the last was {hand.name}: leave it "
                    f"out, or give the workers more memory ({_first_line(error)})"
                ) from error
            warnings.warn(
                f"{hand.name} died on {item.key}, which another worker gets", ClusterWarning,
                stacklevel=2,
            )  # fmt: skip
            self.again.append(item)
        self._hire()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _last_line(error: Exception) -> str:
    return str(error).strip().split("\n")[-1]
