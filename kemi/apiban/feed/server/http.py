"""The HTTP server: uvicorn, with a bound on how long a request may take to come."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from apiban.errors import ApibanError
from apiban.feed.server.settings import ServeSettings

__all__ = ["make_server"]

# From the connection (or the end of an answer) to the whole header of a request.
HEADER_SECONDS: Final = 10.0
# A body that was refused unread: closing at once could take the answer from a client's hands.
_UNREAD_SECONDS: Final = 1.0
_CONNECTIONS: Final = 1000
_LARGEST_HEADER: Final = 16384


class Patient(H11Protocol):
    """Closes a connection whose request header does not come: uvicorn would wait for ever."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._wait(HEADER_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Stop waiting once a request is there."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the next request, or a moment for the rest of a body that nobody reads."""
        unread = self.conn.their_state is h11.SEND_BODY
        super().on_response_complete()
        self._wait(_UNREAD_SECONDS if unread else HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


def make_server(app: FastAPI, settings: ServeSettings) -> uvicorn.Server:
    """Make the server, which ``serve()`` runs until a signal ends it.

    Raises:
        ApibanError: the certificate cannot be used.

    """
    certificate, key = settings.certificate, settings.certificate_key
    if certificate is not None and key is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise ApibanError(
                f"serve.certificate = {certificate}, serve.certificate_key = {key}: cannot be "
                f"used: {error.strerror or 'not a matching pair in PEM format'}"
            ) from None
    # v1 carries the key in the path: uvicorn's access log would print it.
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Patient,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="critical",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=10,
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=_LARGEST_HEADER,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    return uvicorn.Server(config)
