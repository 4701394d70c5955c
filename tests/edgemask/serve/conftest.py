"""A running server, and how to talk to it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from live_fakes import FakeBoard, FakeSource, Opener, SlowSegmenter, until

from edgemask.live.engine import Engine
from edgemask.serve.server import Server


@dataclass
class Site:
    """A server and its engine."""

    engine: Engine
    server: Server

    def open(
        self, method: str, path: str, body: Any = None, timeout: float = 5.0, **headers: str
    ) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=timeout)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=fields)
        return connection.getresponse()

    def get(self, path: str, **headers: str) -> tuple[int, Any, bytes]:
        with self.open("GET", path, **headers) as response:
            return response.status, response.headers, response.read()

    def post(self, body: Any, path: str = "/settings", **headers: str) -> tuple[int, str]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"Content_Type": "application/json", **headers}
        with self.open("POST", path, content, **fields) as response:
            return response.status, response.read().decode()


@pytest.fixture
def make_site() -> Iterator[Callable[..., Site]]:
    """Start servers; they are stopped after the test, and must stop well."""
    sites: list[Site] = []

    def make(
        opener: Any = None,
        segmenter: Any = None,
        engine_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> Site:
        engine = Engine(
            opener or Opener(FakeSource), segmenter or SlowSegmenter(), board=FakeBoard(),
            backoff=(0.05, 0.05), **(engine_options or {}),
        )  # fmt: skip
        server = Server(engine, port=0, **options)
        sites.append(Site(engine, server))
        engine.start()
        server.start()
        return sites[-1]

    yield make
    for site in sites:
        assert site.server.stop()
        assert site.engine.stop()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """A server whose camera runs."""
    site = make_site()
    until(site.engine.processing)
    return site
