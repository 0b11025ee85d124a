"""A server on this host that does to a client whatever a test says."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Self

__all__ = ["LocalServer", "Talk", "answer", "hold", "trickle"]

# Speaks on one connection after the request was read; the event tells that the test is over.
Talk = Callable[[socket.socket, threading.Event], None]


def answer(body: bytes = b"", *headers: str, status: str = "200 OK", length: bool = True) -> Talk:
    """Give a whole answer; without ``length`` the headers are to tell where the body ends."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    raw = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    return lambda connection, _ended: connection.sendall(raw)


def trickle(start: bytes, rest: bytes) -> Talk:
    """Give ``start``, and then ``rest`` again and again, a byte at a time."""

    def talk(connection: socket.socket, ended: threading.Event) -> None:
        connection.sendall(start)
        while True:
            for number in rest:
                if ended.wait(0.02):
                    return
                connection.sendall(bytes([number]))

    return talk


def hold(_connection: socket.socket, ended: threading.Event) -> None:
    """Say nothing."""
    ended.wait(20)


class LocalServer:
    """Serves a connection at a time on a port of its own; ``requests`` holds what was asked."""

    def __init__(self, *talks: Talk, tls: ssl.SSLContext | None = None, reads: bool = True) -> None:
        self.requests: list[bytes] = []
        self._talks = talks
        self._tls = tls
        self._reads = reads
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)

    def url(self, scheme: str = "http") -> str:
        """Give the base URL."""
        return f"{scheme}://127.0.0.1:{self.port}/api/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        for talk in self._for_ever():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(10)
            with connection, contextlib.suppress(OSError):  # the client may leave at any point
                self._serve(connection, talk)

    def _for_ever(self) -> Iterable[Talk]:
        yield from self._talks
        while True:
            yield self._talks[-1]

    def _serve(self, connection: socket.socket, talk: Talk) -> None:
        if self._tls is not None:
            with self._tls.wrap_socket(connection, server_side=True) as secured:
                self._converse(secured, talk)
        else:
            self._converse(connection, talk)

    def _converse(self, connection: socket.socket, talk: Talk) -> None:
        if self._reads:
            self.requests.append(_request(connection))
        talk(connection, self._ended)


def _request(connection: socket.socket) -> bytes:
    """Read one request to its end."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += connection.recv(65536) or b"\r\n\r\n"
    head, _, body = raw.partition(b"\r\n\r\n")
    for header in head.lower().split(b"\r\n"):
        name, _, value = header.partition(b":")
        while name == b"content-length" and len(body) < int(value):
            body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
