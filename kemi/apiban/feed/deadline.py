"""A deadline for a whole HTTP exchange.

``requests`` bounds each read, so a server that sends one byte now and then holds a client for
ever. Here every socket that the session opens is known, and the deadline shuts them down: the
read that waits then ends at once, be it in the headers or in the body. Connecting has what is
left of the time, however many addresses a name has; the resolver has bounds of its own.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any, Final, Self

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

__all__ = ["Deadline", "DeadlineAdapter"]

_CONNECT_TIMEOUT: Final = 10.0


class Deadline:
    """Ends the exchanges on the sockets it watches when its time is up."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._handles: list[socket.socket] = []
        self.expired = False

    def watch(self, connection: socket.socket) -> None:
        """Keep a second handle: TLS takes the first one away from its socket object."""
        with self._lock:
            self._handles.append(connection.dup())
            if self.expired:
                self._shut_down()

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect within what is left, to one address after the other, and watch the socket.

        Raises:
            OSError: none of the host's addresses took us.

        """
        failure: OSError = TimeoutError("no time is left")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            left = self._ends - time.monotonic()
            if left <= 0:
                break
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(min(left, _CONNECT_TIMEOUT))
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                connection.close()
                failure = error
            else:
                self.watch(connection)
                return connection
        raise failure

    def __enter__(self) -> Self:
        self._ends = time.monotonic() + self._seconds
        self._timer = threading.Timer(self._seconds, self._expire)
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            self._shut_down()

    def _shut_down(self) -> None:
        for handle in self._handles:
            with contextlib.suppress(OSError):  # it had ended by itself
                handle.shutdown(socket.SHUT_RDWR)


class DeadlineAdapter(HTTPAdapter):
    """A transport for ``requests`` whose sockets a deadline can end."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        super().__init__(max_retries=0, pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Build the pool with connections that tell the deadline of their sockets."""
        super().init_poolmanager(*args, **kwargs)
        _watch_pools(self.poolmanager, self._deadline)

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        """Build the pool of a proxy likewise."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        _watch_pools(manager, self._deadline)
        return manager


def _watch_pools(manager: Any, deadline: Deadline) -> None:
    class WatchedHTTP(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return deadline.connect(self._dns_host, self.port or self.default_port)

    class WatchedHTTPS(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return deadline.connect(self._dns_host, self.port or self.default_port)

    class PoolHTTP(HTTPConnectionPool):
        ConnectionCls = WatchedHTTP

    class PoolHTTPS(HTTPSConnectionPool):
        ConnectionCls = WatchedHTTPS

    manager.pool_classes_by_scheme = {"http": PoolHTTP, "https": PoolHTTPS}
