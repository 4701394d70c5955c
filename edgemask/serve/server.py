"""The web server of an engine, and its bounds."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgemask.errors import InputError
from edgemask.serve.access import Access, is_loopback
from edgemask.serve.handler import Handler
from edgemask.serve.publisher import Publisher

if TYPE_CHECKING:
    from edgemask.live.engine import Engine

__all__ = ["Connections", "Server"]

MAX_STREAMS = 16
"""Streams and event readers at the same time; a page has one of each."""

_SPARE = 8  # connections for everything else
_HEAD_SECONDS = 10.0
_SEND_BUFFER = 256 * 1024  # a client that is slower than this must not see pictures of long ago
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # seconds, tries
_BUSY = (
    b"HTTP/1.0 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 10\r\n"
    b"Connection: close\r\n\r\nToo many clients. Close another page first.\n"
)


class Connections(ThreadingHTTPServer):
    """A thread per connection, within bounds; whoever comes when all are taken gets a 503."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], max_streams: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.engine: Engine
        self.publisher: Publisher
        self.access: Access
        self.beside: Callable[[], dict[str, Any]]
        self._max_streams = max_streams
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._reading_head: dict[socket.socket, float] = {}
        self._streaming: set[socket.socket] = set()
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind without looking up the machine's name, which can take long and is not needed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "edgemask", int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread, if there is room for it."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address),
            name="edgemask-client", daemon=True,
        )  # fmt: skip
        with self._lock:
            room = len(self._clients) < self._max_streams + _SPARE
            if room:
                self._clients[request] = thread
                self._reading_head[request] = time.monotonic()
        if room:
            request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            _keep_alive(request)
            thread.start()
        else:
            self._turn_away(request)

    def _turn_away(self, request: socket.socket) -> None:
        """Answer 503 without ever waiting for the client."""
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(_BUSY)
            request.recv(65536)  # what is left unread would make the answer disappear
        self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and forget it."""
        with self._lock:
            self._clients.pop(request, None)
            self._reading_head.pop(request, None)
            self._streaming.discard(request)
        super().shutdown_request(request)

    def head_read(self, handler: Handler) -> None:
        """The request is complete; from here on the timeout of single writes is enough."""
        with self._lock:
            self._reading_head.pop(handler.connection, None)

    def start_stream(self, handler: Handler) -> bool:
        """Take a place for a stream; if there is none, say so and return False."""
        with self._lock:
            room = len(self._streaming) < self._max_streams
            if room:
                self._streaming.add(handler.connection)
        if not room:
            handler._refuse(503, "Too many clients. Close another page.", {"Retry-After": "10"})
        return room

    def service_actions(self) -> None:
        """Drop clients that send their request byte by byte; called twice a second or more."""
        late = time.monotonic() - _HEAD_SECONDS
        with self._lock:
            slow = [request for request, since in self._reading_head.items() if since < late]
        for request in slow:
            _shut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go away in the middle, which is normal."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def close_all(self, timeout: float) -> bool:
        """End all connections; return whether their threads ended within `timeout` seconds."""
        with self._lock:
            open_now = dict(self._clients)
        deadline = time.monotonic() + timeout
        for request in open_now:
            _shut(request)
        for thread in open_now.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in open_now.values())


def _keep_alive(request: socket.socket) -> None:
    """Have the system notice a client that has left the network, though nothing is sent to it."""
    request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):  # Linux has all of them
            request.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _shut(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class Server:
    """Serves a running engine. A context manager.

    Parameters
    ----------
    engine : Engine
    host : str
        Address to listen on.
    port : int
        0 takes any that is free.
    token : str or None
        What clients must know. Only an address that no other machine can reach goes without.
    max_streams : int
        Streams and event readers at the same time.
    beside : callable, optional
        What ``/status`` shows besides the engine's own status, JSON-ready.

    Attributes
    ----------
    port : int
        The one that is listened on.

    Raises
    ------
    InputError
        The address cannot be listened on, or needs a token.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        token: str | None = None,
        max_streams: int = MAX_STREAMS,
        beside: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        if token is None and not is_loopback(host):
            raise InputError(f"{host} can be reached by other machines: give a token")
        try:
            self._http = Connections((host, port), max_streams)
        except (OSError, OverflowError, TypeError) as error:  # TypeError: no name of a host
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(
                f"cannot listen on {host} port {port} ({reason}): choose others with --host and "
                "--port"
            ) from error
        self.port = self._http.server_port
        self._http.engine = engine
        self._http.beside = beside
        self._http.access = Access(token, self.port)
        self._http.publisher = self._publisher = Publisher(engine)
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.25,), name="edgemask-http", daemon=True
        )

    def start(self) -> None:
        """Start to answer."""
        self._publisher.start()
        self._thread.start()

    def stop(self) -> bool:
        """Close the port and all connections; return whether all threads ended in time."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()
        published = self._publisher.stop()
        return self._http.close_all(2.0) and published

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
