"""One feed: its parts, put together from the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from fastapi import FastAPI

from apiban.feed.server.api import make_app
from apiban.feed.server.api.access import Access
from apiban.feed.server.api.health import health_router
from apiban.feed.server.api.lists import ipset_router, v1_router, v2_router
from apiban.feed.server.api.reporting import report_router
from apiban.feed.server.claims import Claims
from apiban.feed.server.curator import Curator
from apiban.feed.server.database import Database
from apiban.feed.server.enrolment import Enrolment
from apiban.feed.server.evidence import Evidence
from apiban.feed.server.keys import Keys
from apiban.feed.server.listings import Listings
from apiban.feed.server.mail import Mail
from apiban.feed.server.metrics import Metrics, metrics_router
from apiban.feed.server.never import NeverList
from apiban.feed.server.operator import Operator
from apiban.feed.server.page import page_router
from apiban.feed.server.page.enrolment import enrolment_router
from apiban.feed.server.quota import Quota
from apiban.feed.server.reports import Reports
from apiban.feed.server.settings import ServerSettings
from apiban.log import Log

__all__ = ["Service"]


class Service:
    """The parts of one feed, which share its database, its clock and its log.

    Raises:
        ApibanError: the never-list cannot be read.
        StoreError: the database cannot be opened.

    """

    def __init__(self, settings: ServerSettings, *, now: Callable[[], float], log: Log) -> None:
        self.settings = settings
        self.log = log
        self.now = now
        self.never = NeverList(settings.curation.never_file, log)
        self.database = Database(settings.database)
        self.claims = Claims(settings.curation, self.never, now)
        self.evidence = Evidence(settings.curation, now)
        self.listings = Listings(self.database, now)
        self.keys = Keys(self.database, now)
        self.reports = Reports(self.database, self.claims, self.evidence, settings.curation, now)
        self.operator = Operator(self.database, now, trust_loopback=settings.page.trust_loopback)
        self.curator = Curator(
            database=self.database,
            claims=self.claims,
            evidence=self.evidence,
            never=self.never,
            now=now,
            log=log,
        )

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def app(self) -> FastAPI:
        """Build the HTTP application."""
        serve = self.settings.serve
        metrics = Metrics(self.database, self.now)
        quota = Quota(self.database, self.now, requests=serve.requests, seconds=serve.window)
        access = Access(self.keys, quota, metrics)
        routers = [
            report_router(self.reports, access, metrics),
            v2_router(self.listings, access),
            v1_router(self.listings, access),
            ipset_router(self.listings, access),
            health_router(self.database),
            page_router(self.database, self.now, self.operator),
            metrics_router(metrics, self.operator),
        ]
        mail = self.settings.mail
        if mail.host:
            enrolment = Enrolment(
                database=self.database,
                keys=self.keys,
                mail=Mail(mail),
                settings=mail,
                now=self.now,
                log=self.log,
            )
            routers.append(enrolment_router(enrolment))
        return make_app(routers, log=self.log, metrics=metrics)
