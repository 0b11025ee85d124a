"""Call an ASGI application in this process, one request at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from apiban.feed.client import HttpRequest, HttpResponse

__all__ = ["AsgiTransport", "Raw", "call"]


@dataclass(frozen=True)
class Raw:
    """All that an application sent."""

    status: int
    headers: dict[str, str]
    body: bytes


def call(
    app: Any,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    chunks: Iterable[bytes] = (),
    *,
    client: str = "192.0.2.1",
    http_version: str = "1.1",
) -> Raw:
    """Send one request, its body in these chunks; what the application raises gets out."""
    path, _, query = path.partition("?")
    body = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    incoming = [*body, {"type": "http.request", "body": b"", "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": http_version,
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [
            (name.lower().encode(), text.encode("latin-1"))
            for name, text in (headers or {}).items()
        ],
        "server": ("feed.test", 80),
        "client": (client, 50000),
    }
    asyncio.run(app(scope, receive, send))
    start, *rest = sent
    return Raw(
        start["status"],
        {name.decode(): text.decode() for name, text in start["headers"]},
        b"".join(message.get("body", b"") for message in rest),
    )


class AsgiTransport:
    """A Transport of the feed client whose other end is an application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Give the whole answer."""
        chunks = [] if request.json is None else [json.dumps(request.json).encode()]
        path = urlsplit(request.url).path
        raw = call(self._app, request.method, path, request.headers, chunks)
        return HttpResponse(raw.status, raw.body, raw.headers.get("retry-after"))
