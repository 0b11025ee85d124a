"""A line a request: its route, never its path, since v1 carries the key in it."""

from __future__ import annotations

import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apiban.feed.server.metrics import Metrics
from apiban.log import Log

__all__ = ["AccessLog"]


class AccessLog:
    """ASGI middleware that logs and counts each request once it is answered."""

    def __init__(self, app: ASGIApp, log: Log, metrics: Metrics) -> None:
        self._app = app
        self._log = log
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            self._note(scope, status, time.perf_counter() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route: Any = scope.get("route")
        path = getattr(route, "path", "(none)")
        method = scope["method"] if path != "(none)" else "(any)"
        self._metrics.observe(path, method, status, seconds)
        client = scope.get("client") or ("?", 0)
        self._log(
            "request",
            method=scope["method"],
            route=path,
            status=status,
            ms=seconds * 1000,
            client=client[0],
            key=scope.get("state", {}).get("key_name", "-"),
        )
