"""The running service: the API, and beside it the curator's rounds and the mirror."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from apiban.errors import ApibanError
from apiban.feed.server.application import make_application
from apiban.feed.server.http import make_server
from apiban.feed.server.mirror import Mirror
from apiban.feed.server.service import Service
from apiban.log import where

__all__ = ["serve"]

_SAY_EVERY: Final = 60.0
_TICK_EVERY: Final = 0.2


def serve(service: Service, *, mirror: bool = True) -> int:
    """Serve until a signal ends it; give the exit status.

    Raises:
        ApibanError: it cannot be started.

    """
    settings, curation = service.settings.serve, service.settings.curation
    server = make_server(make_application(service), settings)
    end = threading.Event()
    works = [_Work("curator", service.curator.round, curation.every, service, end)]
    if mirror and service.settings.mirror is not None:
        works.append(_Work("mirror", Mirror(service).tick, _TICK_EVERY, service, end))
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


class _Work(threading.Thread):
    """Does something again and again; a failure is said, and the next time comes."""

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        every: float,
        service: Service,
        end: threading.Event,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._every = every
        self._log = service.log
        self._end = end
        self._said = ("", 0.0)

    def run(self) -> None:
        """Work until the end."""
        while not self._end.is_set():
            try:
                self._work()
            except ApibanError as error:
                self._say("feed-store-failed", str(error), reason=error, effect="tried again")
            except Exception as error:  # noqa: BLE001 - the next time may well succeed
                name = type(error).__name__
                self._say("fault", name, what=name, at=where(error), effect="tried again")
            self._end.wait(self._every)

    def _say(self, event: str, text: str, **fields: object) -> None:
        """Say a trouble once a minute while it lasts."""
        now = time.monotonic()
        if self._said[0] != text or now - self._said[1] >= _SAY_EVERY:
            self._said = (text, now)
            self._log(event, **fields)
