"""The running service: the API, and beside it the curator's rounds and the mirror."""

from __future__ import annotations

import threading

from apiban.errors import ApibanError
from apiban.feed.server.application import make_application
from apiban.feed.server.http import make_server
from apiban.feed.server.mirror import TICK_EVERY, Mirror
from apiban.feed.server.service import Service
from apiban.feed.server.work import Work

__all__ = ["serve"]


def serve(service: Service, *, mirror: bool = True) -> int:
    """Serve until a signal ends it; give the exit status.

    Raises:
        ApibanError: it cannot be started.

    """
    settings, curation = service.settings.serve, service.settings.curation
    server = make_server(make_application(service), settings)
    end = threading.Event()
    works = [Work("curator", service.curator.round, curation.every, service.log, end)]
    if mirror and service.settings.mirror is not None:
        works.append(Work("mirror", Mirror(service).tick, TICK_EVERY, service.log, end))
    service.log(
        "feed-start",
        host=settings.host,
        port=settings.port,
        tls=settings.certificate is not None,
        listings=service.listings.count(),
    )
    for work in works:
        work.start()
    try:
        server.run()
    except SystemExit:  # uvicorn's way of saying that it could not listen
        raise ApibanError(
            f"serve.host = {settings.host}, serve.port = {settings.port}: cannot be listened on"
        ) from None
    finally:
        end.set()
        for work in works:
            work.join(10)
    service.log("feed-stop")
    return 0 if server.started else 1
