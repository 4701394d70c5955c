"""The requests: a fixed table of routes, and nothing that reads a path from a URL."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.client
import importlib.resources
import json
import re
import select
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar

from edgemask import __version__
from edgemask.errors import InputError
from edgemask.serve.metrics import CONTENT_TYPE, exposition

if TYPE_CHECKING:
    from edgemask.serve.access import Verdict
    from edgemask.serve.server import Connections

__all__ = ["Handler"]

_BOUNDARY = "edgemask-frame"
_MAX_BODY = 4096
_MAX_HEAD = 16384
_STATUS_SECONDS = 2.0
_WAIT_SECONDS = 5.0


@functools.cache
def _page() -> tuple[bytes, str]:
    """Return the page and a policy that lets it run its own script and style and nothing else."""
    text = importlib.resources.files("edgemask.serve").joinpath("page.html").read_text("utf-8")

    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digests = (hashlib.sha256(part.encode()).digest() for part in found)
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    policy = (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return text.encode(), policy


class _Head:
    """Reads lines up to so many bytes in all; then what http.server answers with 431."""

    def __init__(self, stream: Any, left: int) -> None:
        self._stream, self._left = stream, left

    def readline(self, limit: int) -> bytes:
        line: bytes = self._stream.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise http.client.LineTooLong("head")
        return line


class Handler(BaseHTTPRequestHandler):
    """Answers one request; every connection has a thread and one request."""

    server: Connections
    timeout = 10.0  # of every read and write: a client that does nothing loses its place
    server_version = f"edgemask/{__version__}"
    sys_version = ""
    disable_nagle_algorithm = True
    _verdict: Verdict

    def parse_request(self) -> bool:
        """Read the head, of which http.server would take megabytes."""
        whole: Any = self.rfile
        limited: Any = _Head(whole, _MAX_HEAD)
        self.rfile = limited
        try:
            return super().parse_request()
        finally:
            self.rfile = whole

    def do_GET(self) -> None:
        self._dispatch("GET")

    def do_HEAD(self) -> None:
        # As GET, without the body: what programs that watch a server ask for.
        self._dispatch("GET")

    def do_POST(self) -> None:
        self._dispatch("POST")

    def _dispatch(self, method: str) -> None:
        path, _, query = self.path.partition("?")
        methods = self._ROUTES.get(path)
        if methods is None:
            return self._refuse(404, "There is no such page.")
        if method not in methods:
            allowed = [*methods, "HEAD"] if "GET" in methods else methods
            return self._refuse(405, f"Use {' or '.join(methods)}.", {"Allow": ", ".join(allowed)})
        verdict = self._verdict = self.server.access.judge(method, self.headers, query)
        if verdict.status != 200:
            extra = {"WWW-Authenticate": "Bearer"} if verdict.status == 401 else {}
            return self._refuse(verdict.status, verdict.message, extra)
        if path == "/" and verdict.in_query:
            # Out of the address bar, the history and what gets copied from there.
            cookie = {"Set-Cookie": self.server.access.cookie()}
            return self._answer(b"", "text/plain", 303, {"Location": "./", **cookie})
        methods[method](self)
        return None

    def _send_page(self) -> None:
        page, policy = _page()
        self._answer(page, "text/html; charset=utf-8", extra={"Content-Security-Policy": policy})

    def _send_stream(self) -> None:
        pictures = self.server.publisher.pictures
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        if self.command == "HEAD":
            return self._head(200, kind)
        if not self.server.start_stream(self):
            return None
        with pictures.reading():
            self._head(200, kind)
            # Browsers show a part when the head of the next one has come. So that follows at once,
            # and cannot say how long the next picture will be.
            head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
            self.wfile.write(head)
            number = 0
            while not pictures.closed:
                found = pictures.wait(number, _WAIT_SECONDS)
                if found is None:
                    # Nothing is written while no frame comes, so nothing else would notice.
                    if self._client_has_gone():
                        return None
                else:
                    number, picture = found
                    self.wfile.write(b"\r\n".join((picture, head)))
        return None

    def _client_has_gone(self) -> bool:
        """Whether the client has closed its end; it sends nothing after its request."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _send_events(self) -> None:
        publisher = self.server.publisher
        kind = "text/event-stream; charset=utf-8"
        if self.command == "HEAD":
            return self._head(200, kind)
        if not self.server.start_stream(self):
            return None
        with publisher.events.reading():
            self._head(200, kind)
            self.wfile.write(b"retry: 2000\n\n")
            number, due = 0, 0.0
            while not publisher.events.closed:
                # Also a sign of life when no frame comes, and what notices readers that have gone.
                if time.monotonic() >= due:
                    status = json.dumps(publisher.status(), allow_nan=False)
                    self.wfile.write(f"event: status\ndata: {status}\n\n".encode())
                    due = time.monotonic() + _STATUS_SECONDS
                found = publisher.events.wait(number, max(0.0, due - time.monotonic()))
                if found is not None:
                    number, record = found
                    self.wfile.write(b"event: frame\ndata: " + record + b"\n\n")
        return None

    def _send_snapshot(self) -> None:
        picture = self.server.publisher.picture(_WAIT_SECONDS)
        if picture is None:
            return self._refuse(503, "There is no picture yet.", {"Retry-After": "5"})
        return self._answer(picture, "image/jpeg")

    def _send_health(self) -> None:
        engine = self.server.engine
        good = engine.processing()
        status = engine.status()
        self._json(
            {
                "processing": good,
                "source": status["source"],
                "fps": status["fps"],
                "last_frame_age_s": status["last_frame_age_s"],
            },
            200 if good else 503,
        )

    def _send_status(self) -> None:
        self._json({**self.server.engine.status(), **self.server.beside()})

    def _send_metrics(self) -> None:
        engine, publisher = self.server.engine, self.server.publisher
        readers = {"stream": publisher.pictures.readers, "events": publisher.events.readers}
        text = exposition(engine.status(), engine.processing(), readers)
        self._answer(text.encode(), CONTENT_TYPE)

    def _change_settings(self) -> None:
        if self.headers.get_content_type() != "application/json":
            return self._refuse(415, "Send the settings as application/json.")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            return self._refuse(411, "Say how long the settings are, with Content-Length.")
        if len(length) > 6 or int(length) > _MAX_BODY:
            return self._refuse(413, f"Send at most {_MAX_BODY} bytes.")
        try:
            values = json.loads(self.rfile.read(int(length)).decode("utf-8"))
            if not isinstance(values, dict):
                raise ValueError("it is not an object")
        except (ValueError, RecursionError) as error:
            return self._refuse(400, f"The settings are not a JSON object: {error}")
        try:
            settings = self.server.engine.configure(**values)
        except InputError as error:
            return self._refuse(400, str(error))
        return self._json({"settings": settings})

    _ROUTES: ClassVar[dict[str, dict[str, Callable[[Handler], None]]]] = {
        "/": {"GET": _send_page},
        "/stream.mjpg": {"GET": _send_stream},
        "/events": {"GET": _send_events},
        "/snapshot.jpg": {"GET": _send_snapshot},
        "/status": {"GET": _send_status},
        "/healthz": {"GET": _send_health},
        "/metrics": {"GET": _send_metrics},
        "/settings": {"POST": _change_settings},
    }

    def _json(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value, allow_nan=False, indent=1).encode() + b"\n"
        self._answer(body, "application/json", status)

    def _refuse(self, status: int, message: str, extra: dict[str, str] | None = None) -> None:
        self._answer(f"{message}\n".encode(), "text/plain; charset=utf-8", status, extra)

    def _answer(
        self, body: bytes, kind: str, status: int = 200, extra: dict[str, str] | None = None
    ) -> None:
        self._head(status, kind, {"Content-Length": str(len(body)), **(extra or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, kind: str, extra: dict[str, str] | None = None) -> None:
        self.server.head_read(self)
        self.send_response(status)
        # Other sites may show what their user gave them the token for.
        explicit = status == 200 and self._verdict.explicit
        for name, value in {
            "Content-Type": kind,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "cross-origin" if explicit else "same-origin",
            "X-Accel-Buffering": "no",
            **(extra or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server itself refuses, without repeating any of it."""
        self._refuse(code, HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: a line per request wears out an SD card, and URLs may hold the token."""
