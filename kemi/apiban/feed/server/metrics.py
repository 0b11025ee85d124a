"""Metrics for Prometheus: counts of this process, and what the database says at each scrape.

No label ever holds a key, an address, or anything else that a client chooses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Final

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from apiban import __version__
from apiban.errors import StoreError
from apiban.feed.server.database import Database
from apiban.feed.server.operator import Access, Operator
from apiban.feed.server.page.figures import active_now, honeypots_at, mirror_state

__all__ = ["Metrics", "metrics_router"]

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one application, in a registry of its own; ``now`` in seconds since 1970."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "apiban_feed_http_requests",
            "Requests answered.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "apiban_feed_http_request_duration_seconds",
            "Time from a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._rate_limited = self._counter("rate_limited", "Requests beyond their key's quota.")
        self._unauthorized = self._counter("unauthorized", "Requests without a key that may.")
        self._store_errors = self._counter("store_errors", "Failures of the database.")
        self._sightings = Counter(
            "apiban_feed_sightings",
            "Sightings that honeypots reported, by what became of them.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("accepted", "repeated", "refused"):
            self._sightings.labels(outcome)
        Gauge(
            "apiban_feed_build_info", "1, with the version.", ["version"], registry=self.registry
        ).labels(__version__).set(1)
        self.registry.register(_Stored(database, now, self.store_error))

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer; ``route`` is the template of its path, never the path itself."""
        self._requests.labels(route, method if method in _METHODS else "other", status).inc()
        self._seconds.labels(route).observe(seconds)

    def rate_limited(self) -> None:
        """Count a request beyond its key's quota."""
        self._rate_limited.inc()

    def unauthorized(self) -> None:
        """Count a request without a key, or with one that may not."""
        self._unauthorized.inc()

    def reports(self, accepted: int, repeated: int, refused: int) -> None:
        """Count the sightings of a report."""
        for outcome, count in (
            ("accepted", accepted),
            ("repeated", repeated),
            ("refused", refused),
        ):
            self._sightings.labels(outcome).inc(count)

    def store_error(self) -> None:
        """Count a failure of the database."""
        self._store_errors.inc()

    def text(self) -> bytes:
        """Give all of them in Prometheus's text format; the database is read for it."""
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(f"apiban_feed_{name}", what, registry=self.registry)


class _Stored(Collector):
    """What stands in the database; nothing of it when that cannot be read."""

    def __init__(
        self, database: Database, now: Callable[[], float], failed: Callable[[], None]
    ) -> None:
        self._database = database
        self._now = now
        self._failed = failed
        self._one_at_a_time = threading.Lock()

    def describe(self) -> list[Metric]:
        """Name nothing ahead: to be registered costs no look at the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read the database."""
        up = GaugeMetricFamily("apiban_feed_store_up", "Whether the database could be read.")
        try:
            found = self._read()
        except StoreError:
            self._failed()
            found = []
            up.add_metric([], 0)
        else:
            up.add_metric([], 1)
        yield up
        yield from found

    def _read(self) -> list[Metric]:
        now = self._now()
        with self._one_at_a_time, self._database.read() as connection:
            active = active_now(connection, now)
            honeypots = honeypots_at(connection, now)
            mirror = mirror_state(connection)
        listings = GaugeMetricFamily(
            "apiban_feed_listings", "Active addresses.", labels=["dataset"]
        )
        for one in active:
            listings.add_metric([one.label], one.value)
        reported = GaugeMetricFamily(
            "apiban_feed_honeypot_last_report_timestamp_seconds",
            "When a honeypot last reported.",
            labels=["honeypot"],
        )
        for honeypot in honeypots:
            reported.add_metric([honeypot.name], honeypot.last_report)
        if mirror is None:
            return [listings, reported]
        state = GaugeMetricFamily(
            "apiban_feed_mirror_state", "1, with the state of the mirror.", labels=["state"]
        )
        state.add_metric([mirror.state], 1)
        entries = GaugeMetricFamily("apiban_feed_mirror_entries", "Addresses of the upstream.")
        entries.add_metric([], mirror.entries)
        success = GaugeMetricFamily(
            "apiban_feed_mirror_last_success_timestamp_seconds",
            "When the upstream's list was last complete here.",
        )
        if mirror.complete_at is not None:
            success.add_metric([], mirror.complete_at)
        return [listings, reported, state, entries, success]


def metrics_router(metrics: Metrics, operator: Operator) -> APIRouter:
    """Give the route of ``GET /metrics``: for the operator, or for this machine."""
    router = APIRouter(include_in_schema=False)
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

    def answer(request: Request) -> Response:
        try:
            access = operator.access(request)
        except StoreError:
            metrics.store_error()
            return PlainTextResponse("the database cannot be read\n", 503, headers)
        if access is Access.LOCKED:
            return PlainTextResponse("too many wrong passwords\n", 429, headers)
        if access is Access.REFUSED:
            return PlainTextResponse("for the operator\n", 403, headers)
        return Response(metrics.text(), 200, headers, CONTENT_TYPE_PLAIN_0_0_4)

    router.add_api_route("/metrics", answer, response_model=None)
    return router
