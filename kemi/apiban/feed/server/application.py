"""The HTTP application of one feed: its routes over its parts."""

from __future__ import annotations

from fastapi import FastAPI

from apiban.feed.server.api import make_app
from apiban.feed.server.api.access import Access
from apiban.feed.server.api.health import health_router
from apiban.feed.server.api.lists import ipset_router, v1_router, v2_router
from apiban.feed.server.api.reporting import report_router
from apiban.feed.server.enrolment import Enrolment
from apiban.feed.server.mail import Mail
from apiban.feed.server.metrics import Metrics, metrics_router
from apiban.feed.server.operator import Operator
from apiban.feed.server.page import page_router
from apiban.feed.server.page.enrolment import enrolment_router
from apiban.feed.server.quota import Quota
from apiban.feed.server.service import Service

__all__ = ["make_application"]


def make_application(service: Service) -> FastAPI:
    """Build the application of a service."""
    operator = Operator(
        service.database, service.now, trust_loopback=service.settings.page.trust_loopback
    )
    serve = service.settings.serve
    metrics = Metrics(service.database, service.now)
    quota = Quota(service.database, service.now, requests=serve.requests, seconds=serve.window)
    access = Access(service.keys, quota, metrics)
    routers = [
        report_router(service.reports, access, metrics),
        v2_router(service.listings, access),
        v1_router(service.listings, access),
        ipset_router(service.listings, access),
        health_router(service.database),
        page_router(service.database, service.now, operator),
        metrics_router(metrics, operator),
    ]
    mail = service.settings.mail
    if mail.host:
        enrolment = Enrolment(
            database=service.database,
            keys=service.keys,
            mail=Mail(mail),
            settings=mail,
            now=service.now,
            log=service.log,
        )
        routers.append(enrolment_router(enrolment))
    return make_app(routers, log=service.log, metrics=metrics)
