"""The messages to systemd, received by a socket of the test's own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemask.live.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        yield receiver


def test_messages(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "30000000"})
    notifier.ready()
    notifier.alive()
    notifier.status("5.2 fps\n61 °C")
    notifier.stopping()
    received = [manager.recv(1000).decode() for _ in range(4)]
    assert received == ["READY=1", "WATCHDOG=1", "STATUS=5.2 fps 61 °C", "STOPPING=1"]
    assert notifier.watchdog_seconds == 30


def test_abstract_addresses() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        name = f"edgemask-test-{os.getpid()}"
        receiver.bind(f"\0{name}")
        receiver.settimeout(5)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert receiver.recv(100) == b"READY=1"


def test_no_watchdog_no_food(manager: socket.socket) -> None:
    address = manager.getsockname()
    for environment in ({}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}):
        notifier = Notifier({"NOTIFY_SOCKET": address, **environment})
        assert notifier.watchdog_seconds is None
        notifier.alive()
    manager.settimeout(0.01)
    with pytest.raises(TimeoutError):
        manager.recv(100)


def test_nothing_happens_outside_systemd(tmp_path: Path) -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
