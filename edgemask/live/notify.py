"""Telling systemd how the service is doing: the sd_notify protocol, which is one datagram a time.

Outside systemd, or in a unit that is not ``Type=notify``, every call does nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

__all__ = ["Notifier"]


class Notifier:
    """Sends state to the service manager that started this process.

    Parameters
    ----------
    environment : mapping, optional
        Where ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are; that of the process.

    Attributes
    ----------
    watchdog_seconds : float or None
        Within which the manager wants to hear :meth:`alive`; None if it does not watch.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        values = os.environ if environment is None else environment
        address = values.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL of Linux's abstract socket names.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        given = values.get("WATCHDOG_USEC", "")
        microseconds = int(given) if given.isdigit() else 0
        mine = values.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = microseconds / 1e6 if mine and microseconds else None

    def ready(self) -> None:
        """The service works for its users from now on."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The service has begun to end."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Feed the watchdog; call it when real work was done, never from a timer."""
        if self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send("STATUS=" + " ".join(text.split()))

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1)
                sender.sendto(message.encode(), self._address)
        except OSError:
            pass  # a manager that has gone is no reason to stop working
