"""The HTTP server: uvicorn, with a bound on how long a request may take to come."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import resource
import socket
import ssl
from collections import Counter
from functools import partial
from typing import Any, ClassVar, Final

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from apiban.errors import ApibanError
from apiban.feed.server.settings import ServeSettings

__all__ = ["make_server"]

# While a client takes nothing of an answer.
_STALLED_SECONDS: Final = 20.0
# From a TLS connection to the end of its handshake.
_HANDSHAKE_SECONDS: Final = 5.0
# From the connection (or the end of an answer) to the whole header of a request.
HEADER_SECONDS: Final = 10.0
# A body that was refused unread: closing at once could take the answer from a client's hands.
_UNREAD_SECONDS: Final = 1.0
_CONNECTIONS: Final = 4000
_CONNECTIONS_A_CLIENT: Final = 100
_LARGEST_HEADER: Final = 16384


class Patient(H11Protocol):
    """Ends connections that stand still, of which uvicorn would keep as many as come.

    A request header must come within ``HEADER_SECONDS``, an answer must be taken, and one client
    has so many connections at most.
    """

    _patience: asyncio.TimerHandle | None = None
    _client = ""
    _of_clients: ClassVar[Counter[str]] = Counter()

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        client = _client_of(transport)
        if self._of_clients[client] >= _CONNECTIONS_A_CLIENT:
            transport.abort()
            return
        self._client = client
        if client:
            self._of_clients[client] += 1
        self._wait(HEADER_SECONDS)

    def pause_writing(self) -> None:
        """Wait for the client to take what is written."""
        super().pause_writing()
        self._wait(_STALLED_SECONDS)

    def resume_writing(self) -> None:
        """Go on with the answer."""
        super().resume_writing()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        else:
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
        client, self._client = self._client, ""
        if client:
            self._of_clients[client] -= 1
            if not self._of_clients[client]:
                del self._of_clients[client]
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if self.transport is None:
            return
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closing would wait for the client to take the rest
        else:
            self.transport.close()


def _client_of(transport: asyncio.Transport) -> str:
    """Name who is counted as one: an IPv4 address, or an IPv6 network of 64 bits.

    Loopback is nobody: a reverse proxy has all of its clients' connections.
    """
    peer = transport.get_extra_info("peername")
    try:
        address = ipaddress.ip_address(peer[0].partition("%")[0])
    except (TypeError, ValueError, IndexError):
        return ""
    if address.is_loopback:
        return ""
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))


class _Server(uvicorn.Server):
    """Bounds the TLS handshake, for which uvicorn has no setting."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        if self.config.is_ssl:
            loop: Any = asyncio.get_running_loop()
            loop.create_server = partial(
                loop.create_server, ssl_handshake_timeout=_HANDSHAKE_SECONDS
            )
        await super().startup(sockets)


def _raise_file_limit() -> None:
    """Take as many open files as this process may have: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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
    _raise_file_limit()
    return _Server(config)
