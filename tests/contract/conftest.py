"""One feed server, reached in memory or over HTTP, asked in v1 or in v2."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from apiban.address import parse_network
from apiban.feed.client import FeedClient, RequestsTransport, Transport
from apiban.feed.server.application import make_application
from apiban.feed.server.claims import MANUAL, Wanted
from apiban.feed.server.service import Service as FeedService
from apiban.feed.server.settings import load_server_settings
from apiban.settings import Secret

from tests.contract.asgi import AsgiTransport
from tests.support.clock import ManualClock
from tests.support.log import MemoryLog
from tests.unit.feed.parts import KEY, feed_settings

NOW = 1_800_000_000.0

Feed = Callable[..., "Service"]


class Service:
    """A feed over a list, with a clock of its own; ``client`` asks it."""

    def __init__(self, folder: Path, addresses: Iterable[str], limit: int, key: str) -> None:
        self.clock = ManualClock()
        environ = {
            "APIBAN_SERVER_DATABASE_URL": f"sqlite:////{(folder / 'feed.db').relative_to('/')}",
            "APIBAN_SERVER_SERVE_REQUESTS": str(limit),
            "APIBAN_SERVER_CURATION_ACCEPT_PRIVATE": "true",
        }
        settings = load_server_settings(folder / "none.toml", environ)
        self.parts = FeedService(settings, now=self.clock.now, log=MemoryLog())
        self.parts.keys.create("client", blocks=True, ipv6=True, given=Secret(key))
        self.list(*addresses)
        self.app = make_application(self.parts)
        self.url = "http://feed.test/api/"
        self.transport: Transport = AsgiTransport(self.app)

    def list(self, *addresses: str) -> None:
        """List more."""
        now = self.clock.now()
        with self.parts.database.write() as connection:
            self.parts.claims.make(
                connection,
                MANUAL,
                [Wanted(parse_network(one), now, now + 3600) for one in addresses],
            )

    def client(self, version: int, key: str = KEY, path: str = "", **changes: Any) -> FeedClient:
        """Give a client of this service."""
        settings = feed_settings(url=self.url + path, version=version, key=Secret(key), **changes)
        return FeedClient(settings, self.transport)


class Port:
    """An HTTP server whose application each test brings along: starting one takes a while."""

    def __init__(self) -> None:
        self.app: Any = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.number: int = self._listener.getsockname()[1]
        config = uvicorn.Config(
            self._answer, interface="asgi3", lifespan="off", access_log=False, log_level="warning"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))
        self._thread.start()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    def close(self) -> None:
        """End the server."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


@pytest.fixture(scope="session")
def port() -> Iterator[Port]:
    """Give the port that all tests share, one after the other."""
    with closing(Port()) as port:
        yield port


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def version(request: pytest.FixtureRequest) -> int:
    """Ask in both versions of the API."""
    number: int = request.param
    return number


@pytest.fixture(params=["memory", "http"])
def feed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, port: Port, tmp_path: Path
) -> Iterator[Feed]:
    """Give a function that makes a service of addresses, reached in either way."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)

    made: list[Service] = []

    def make(addresses: Iterable[str] = (), limit: int = 1000, key: str = KEY) -> Service:
        service = Service(tmp_path, addresses, limit, key)
        made.append(service)
        if request.param == "http":
            port.app = service.app
            service.url = f"http://127.0.0.1:{port.number}/api/"
            service.transport = RequestsTransport(feed_settings())
        return service

    yield make
    for service in made:
        service.parts.close()
