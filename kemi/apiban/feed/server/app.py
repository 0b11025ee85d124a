"""The API: v1 with the key in the path, v2 with a bearer key; the shapes of ``feed.answer``."""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from apiban.address import parse_address
from apiban.errors import AddressError
from apiban.feed.server.catalog import Catalog
from apiban.feed.server.quota import Quota
from apiban.settings.secret import Secret

__all__ = ["make_app"]

_LARGEST_BODY = 4096
_SETS = frozenset({"sip", "http", "all"})

Handler = Callable[[Request], Awaitable[Response]]


def make_app(catalog: Catalog, key: Secret, quota: Quota) -> Starlette:
    """Build the application for one key.

    Raises:
        ValueError: the key is empty, or cannot stand in a path.

    """
    if not key or "/" in key.reveal():
        raise ValueError("the key must not be empty, nor hold a slash")
    api = _Api(catalog, key, quota)
    app = Starlette(
        routes=[
            Route("/api/get", api.v2_get, methods=["POST"]),
            Route("/api/check", api.v2_check, methods=["POST"]),
            Route("/api/{key}/banned", api.v1_banned),
            Route("/api/{key}/banned/{cursor}", api.v1_banned),
            Route("/api/{key}/check/{ip}", api.v1_check),
            Route("/health", _health),
        ],
        exception_handlers={404: _unknown, 405: _unknown},
    )
    app.router.redirect_slashes = False  # the redirect's Location would hold the key
    return app


async def _health(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _unknown(_request: Request, _error: Exception) -> Response:
    return JSONResponse({}, status_code=404)


class _Api:
    """The endpoints; each is refused before anything is looked at, unless key and quota allow."""

    def __init__(self, catalog: Catalog, key: Secret, quota: Quota) -> None:
        self._catalog = catalog
        self._key = key
        self._quota = quota

    async def v1_banned(self, request: Request) -> Response:
        """GET {key}/banned[/{ID}]."""
        return self._guarded(request.path_params["key"]) or self._page(
            request.path_params.get("cursor", "100")
        )

    async def v1_check(self, request: Request) -> Response:
        """GET {key}/check/{ip}."""
        return self._guarded(request.path_params["key"]) or self._check(request.path_params["ip"])

    async def v2_get(self, request: Request) -> Response:
        """POST get, with a body of set and id."""
        refusal = self._guarded(_bearer(request))
        if refusal is not None:
            return refusal
        body = await self._body(request)
        return _malformed() if body is None else self._page(body.get("id", "100"))

    async def v2_check(self, request: Request) -> Response:
        """POST check, with a body of set and ipaddress."""
        refusal = self._guarded(_bearer(request))
        if refusal is not None:
            return refusal
        body = await self._body(request)
        return _malformed() if body is None else self._check(body.get("ipaddress", ""))

    def _guarded(self, key: str) -> Response | None:
        """Give the refusal, if the key or the quota asks for one."""
        given, right = key.encode("utf-8", "replace"), self._key.reveal().encode()
        if not hmac.compare_digest(given, right):
            return JSONResponse({"ipaddress": "none", "ID": "unauthorized"}, status_code=403)
        wait = self._quota.take()
        if wait > 0:
            return JSONResponse(
                {"ipaddress": "rate limit exceeded", "ID": "unauthorized"},
                status_code=429,
                headers={"Retry-After": str(math.ceil(wait))},
            )
        return None

    def _page(self, cursor: object) -> Response:
        text = str(cursor)
        if not (text.isascii() and text.isdecimal() and len(text) <= 40):
            return _malformed()
        networks, number = self._catalog.after(int(text))
        if not networks:
            return JSONResponse({"ipaddress": ["no new bans"], "ID": "none"}, status_code=400)
        return JSONResponse({"ipaddress": [str(one) for one in networks], "ID": str(number)})

    def _check(self, ip: object) -> Response:
        try:
            address = parse_address(str(ip))
        except AddressError:
            return _malformed()
        number = self._catalog.find(address)
        if number is None:
            return JSONResponse({"ipaddress": ["not blocked"], "ID": "none"}, status_code=400)
        return JSONResponse({"ipaddress": [str(address)], "ID": str(number)})

    async def _body(self, request: Request) -> dict[str, object] | None:
        """Read a small JSON object of a known set; None is what is none."""
        raw = b""
        try:
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > _LARGEST_BODY:
                    return None
        except ClientDisconnect:
            return None
        try:
            body = json.loads(raw or b"{}")
        except (ValueError, RecursionError):
            return None
        if not isinstance(body, dict):
            return None
        name = body.get("set", "sip")
        return body if isinstance(name, str) and name in _SETS else None


def _bearer(request: Request) -> str:
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" else ""


def _malformed() -> Response:
    return JSONResponse({}, status_code=400)
