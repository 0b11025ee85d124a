"""The page's addresses.

``/`` is the same for everybody, so that it can be kept for some seconds. What is the operator's
lies below ``/operator/``, since a browser sends a password to what lies below the place that asked
for it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Final

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from apiban.address import parse_network
from apiban.errors import AddressError, StoreError
from apiban.feed.server.database import Database
from apiban.feed.server.operator import Access, Operator
from apiban.feed.server.page.chart import Series, bars, lines
from apiban.feed.server.page.figures import Figures, SlowCounts, figures_at
from apiban.feed.server.page.records import case_of, records
from apiban.feed.server.page.render import document, respond

__all__ = ["page_router"]

_NO_STORE: Final = "no-store"
_LOGIN: Final = 'Basic realm="APIBAN feed", charset="UTF-8"'
_DAY: Final = 86400.0
# How long a visitor waits for the page that another one is having made.
_PATIENCE: Final = 2.0


def page_router(
    database: Database,
    now: Callable[[], float],
    operator: Operator,
    *,
    cache_seconds: float = 5.0,
) -> APIRouter:
    """Give the routes of the status page; ``now`` gives seconds since 1970."""
    public = _PublicPage(database, now, cache_seconds)
    private = _OperatorPages(database, now, operator, public.slow)
    router = APIRouter(include_in_schema=False)
    for path, answer in (
        ("/", public.page),
        ("/operator", private.login),
        ("/operator/", private.page),
        ("/operator/evidence", private.evidence),
    ):
        router.add_api_route(path, answer, methods=["GET", "HEAD"], response_model=None)
    return router


class _PublicPage:
    """The public page, made once in some seconds however many ask for it."""

    def __init__(self, database: Database, now: Callable[[], float], cache_seconds: float) -> None:
        self.slow = SlowCounts()
        self._database = database
        self._now = now
        self._seconds = cache_seconds
        self._lock = threading.Lock()
        self._kept: tuple[float, bytes, int] | None = None

    def page(self) -> Response:
        """GET /: figures for everyone."""
        kept = self._kept
        if kept is None or not 0 <= self._now() - kept[0] < self._seconds:
            kept = self._renewed(kept)
        if kept is None:
            return _no_database()
        _, body, status = kept
        return respond(body, f"public, max-age={math.ceil(self._seconds)}", status)

    def _renewed(self, kept: tuple[float, bytes, int] | None) -> tuple[float, bytes, int] | None:
        """Make the page, unless another thread is at it: then the last one will do.

        So a database that hangs holds one of the threads that serve the API, and not all.
        """
        if not self._lock.acquire(timeout=_PATIENCE if kept is None else 0):
            return kept
        try:
            if self._kept is kept:
                self._kept = self._made()
            return self._kept
        finally:
            self._lock.release()

    def _made(self) -> tuple[float, bytes, int]:
        try:
            with self._database.read() as connection:
                figures = figures_at(connection, self._now(), self.slow)
        except StoreError:
            return self._now(), _NO_DATABASE, 503
        return self._now(), document("public.html", figures=figures, charts=_charts(figures)), 200


class _OperatorPages:
    """What is for the operator alone: never kept, by us or by a browser."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], float],
        operator: Operator,
        slow: SlowCounts,
    ) -> None:
        self._database = database
        self._now = now
        self._operator = operator
        self._slow = slow

    def login(self) -> Response:
        """GET /operator: the page below asks for the password."""
        return RedirectResponse("operator/", 308, {"Cache-Control": _NO_STORE})

    def page(self, request: Request) -> Response:
        """GET /operator/: the figures, with keys, journal and the latest listings."""

        def read(connection: Connection) -> Response:
            figures = figures_at(connection, self._now(), self._slow)
            shown = records(connection)
            charts = _charts(figures)
            charts["key_use"] = bars("key-use", "Requests by key, since it was made", shown.key_use)
            body = document("operator.html", figures=figures, charts=charts, records=shown)
            return respond(body, _NO_STORE)

        return self._answer(request, read)

    def evidence(self, request: Request, address: str = "") -> Response:
        """GET /operator/evidence?address=...: all that is known of one address."""

        def read(connection: Connection) -> Response:
            try:
                network = parse_network(address)
            except AddressError as error:
                return _message("No address", str(error), 400)
            case = case_of(connection, str(network))
            return respond(document("evidence.html", case=case, at=self._now()), _NO_STORE)

        return self._answer(request, read)

    def _answer(self, request: Request, read: Callable[[Connection], Response]) -> Response:
        try:
            access = self._operator.access(request)
            if access is Access.LOCKED:
                text = "Too many wrong passwords were tried. Come again in a minute."
                return _message("Too many tries", text, 429, **{"Retry-After": "60"})
            if access is Access.REFUSED:
                text = "This part of the page needs the operator's password."
                return _message("For the operator", text, 401, **{"WWW-Authenticate": _LOGIN})
            with self._database.read() as connection:
                return read(connection)
        except StoreError:
            return _no_database()


def _charts(figures: Figures) -> dict[str, object]:
    """Draw the charts that everyone sees."""
    end = figures.at

    def active(name: str, title: str, days: int) -> object:
        begin = end - days * _DAY
        return lines(name, title, figures.history, begin=begin, end=end, gap=3 * 3600)

    return {
        "week": active("active-7", "Active addresses, last 7 days", 7),
        "month": active("active-30", "Active addresses, last 30 days", 30),
        "changes": _changes(figures.changes, end),
        "methods": bars("methods", "Sightings by method, last 7 days", figures.methods),
        "tools": bars("tools", "Sightings by tool, last 7 days", figures.tools),
        "transports": bars("transports", "Sightings by transport, last 7 days", figures.transports),
        "sources": bars("sources", "Active claims by source", figures.counts.sources),
    }


def _changes(changes: tuple[Series, ...], end: float) -> object:
    title = "New, reactivated and ended a day"
    return lines("changes", title, changes, begin=end - 30 * _DAY, end=end, gap=1.5 * _DAY)


def _message(title: str, text: str, status: int, **headers: str) -> Response:
    body = document("message.html", title=title, text=text)
    return respond(body, _NO_STORE, status, **headers)


_NO_DATABASE: Final = document(
    "message.html",
    title="Out of order",
    text="The feed's database cannot be read now. The log tells why.",
)


def _no_database() -> Response:
    return respond(_NO_DATABASE, _NO_STORE, 503, **{"Retry-After": "5"})
