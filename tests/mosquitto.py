"""A real MQTT broker on the loopback interface, for the tests marked ``broker`` and ``soak``."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait for a condition and return its value; the last one if it never came true."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return value


class Broker:
    """A mosquitto. When it is killed it forgets everything, unless its configuration says not."""

    def __init__(self, folder: Path, lines: str = "allow_anonymous true\n") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.config = folder / f"mosquitto-{self.port}.conf"
        self.config.write_text(f"user root\nlistener {self.port} 127.0.0.1\n{lines}", "utf-8")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
        assert program, "install mosquitto"
        self.process = subprocess.Popen(
            [program, "-c", self.config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

        def listening() -> bool:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            return False

        assert until(listening), "mosquitto does not listen"

    def send(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
