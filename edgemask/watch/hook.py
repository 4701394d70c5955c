"""Running a program for each event, one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from edgemask.settings import SECRETS

__all__ = ["Hook"]

_WAITING = 8


class Hook:
    """Starts a program per event and gives it the event as JSON on stdin.

    There is no shell: arguments are what they are. The environment is that of this process without
    :data:`~edgemask.settings.SECRETS`. One program runs at a time; while it does, at most eight
    events wait, and the oldest of them gives way. A program that takes longer than `timeout` is
    killed with all its children.

    Parameters
    ----------
    command : sequence of str
        Program and arguments.
    timeout : float
        Seconds.

    Attributes
    ----------
    state : str
        Of the last run: ``ok``, ``timed out``, ``exit status N``, ``killed by signal N``,
        ``cannot start: reason`` or ``cannot be followed: reason``.
    runs, failed, dropped : int
        Programs started, runs that were not ``ok``, events that gave way.
    """

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self.state, self.runs, self.failed, self.dropped = "ok", 0, 0, 0
        self._command = list(command)
        self._timeout = timeout
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="edgemask-hook", daemon=True)
        self._thread.start()

    def submit(self, record: dict[str, Any]) -> None:
        """Hand over an event; never waits."""
        with self._changed:
            if len(self._waiting) == _WAITING:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(json.dumps(record, allow_nan=False).encode() + b"\n")
            self._changed.notify()

    def stop(self, timeout: float = 1.0) -> None:
        """Run what waits within `timeout` seconds, then kill what still runs within as many."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout)
        if self._thread.is_alive():
            with self._changed:
                self.dropped += len(self._waiting)
                self._waiting.clear()
                process = self._process
            if process is not None:
                process.kill()  # its children are then ended by the thread
            self._thread.join(timeout)

    def status(self) -> dict[str, Any]:
        """Return state and counters, JSON-ready."""
        return {
            "state": self.state,
            "runs": self.runs,
            "failed": self.failed,
            "dropped": self.dropped,
        }

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if not self._waiting:
                    return
                record = self._waiting.popleft()
            self.state = self._call(record)
            self.failed += self.state != "ok"

    def _call(self, record: bytes) -> str:
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                # stdout is for events. What the program has to say can go to stderr.
                stdout=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if name not in SECRETS},
                start_new_session=True,  # so that its children can be killed with it
            )
        except (OSError, ValueError) as error:
            return f"cannot start: {getattr(error, 'strerror', None) or error}"
        with self._changed:
            self._process = process
            self.runs += 1
        with contextlib.suppress(OSError), process.stdin or contextlib.nullcontext() as stdin:
            # Never waits: an event fits into the pipe. Nobody has to read it.
            if stdin is not None:
                stdin.write(record)
        ended, trouble = False, "timed out"
        try:
            ended = _wait(process.pid, self._timeout)
        except OSError as error:
            trouble = f"cannot be followed: {error.strerror}"
        # The process is not reaped yet, so its number still means this group and no other. Children
        # that it left behind end with it, or they would pile up event by event.
        _kill(process)
        process.wait()
        with self._changed:
            self._process = None
        if not ended:
            return trouble
        status = process.returncode
        if status:
            return f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        return "ok"


def _wait(pid: int, timeout: float) -> bool:
    """Return whether a child ended within `timeout` seconds; it is not reaped."""
    descriptor = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(timeout * 1000))
    finally:
        os.close(descriptor)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
