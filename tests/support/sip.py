"""SIP messages, senders and a small user agent server, on loopback."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import threading
from typing import Self

_numbers = itertools.count(1)


def message(method: str, source: str, port: int, transport: str, target: str) -> bytes:
    """Build a request outside of a dialog."""
    number = next(_numbers)
    host = f"[{source}]" if ":" in source else source
    at = f"[{target}]" if ":" in target else target
    return (
        f"{method} sip:100@{at} SIP/2.0\r\n"
        f"Via: SIP/2.0/{transport.upper()} {host}:{port};branch=z9hG4bK-t-{number}\r\n"
        f"From: <sip:a@{host}>;tag={number}\r\nTo: <sip:100@{at}>\r\n"
        f"Call-ID: t-{number}@{host}\r\nCSeq: 1 {method}\r\nContact: <sip:a@{host}:{port}>\r\n"
        "Max-Forwards: 70\r\nUser-Agent: telephone\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def reply(source: str, port: int, transport: str) -> bytes:
    """Build a reply that nobody asked for."""
    number = next(_numbers)
    return (
        f"SIP/2.0 200 OK\r\nVia: SIP/2.0/{transport.upper()} {source}:{port};branch=z9hG4bK{number}"
        f"\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: r-{number}\r\n"
        "CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def _end(data: bytes) -> int:
    """Tell where a stream's first message ends; beyond the data when that is not all there."""
    head, blank, _ = data.partition(b"\r\n\r\n")
    if not data or not blank:
        return len(data) + bool(data)
    length = re.search(rb"(?mi)^(?:content-length|l)[ \t]*:[ \t]*(\d+)", head)
    return len(head) + 4 + (int(length[1]) if length else 0)


class Sender:
    """One socket at a source address; ``ask`` sends and gives what came back."""

    def __init__(self, source: str, target: tuple[str, int], transport: str = "udp") -> None:
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        self.socket = socket.socket(family, kind)
        self.socket.bind((source, 0))
        self.socket.settimeout(5)
        self.socket.connect(target)
        self.source, self.target, self.transport = source, target, transport
        self.port = self.socket.getsockname()[1]
        self._unread = b""  # what a stream brought beyond the message that was asked for

    def request(self, method: str = "OPTIONS") -> bytes:
        """Build a request of this sender's."""
        return message(method, self.source, self.port, self.transport, self.target[0])

    def send(self, data: bytes | None = None) -> None:
        """Send without waiting."""
        self.socket.send(self.request() if data is None else data)

    def ask(self, data: bytes | None = None, timeout: float = 3.0) -> bytes:
        """Send and give the first answer; empty when none came, or the connection was closed."""
        self.send(data)
        return self.receive(timeout)

    def receive(self, timeout: float) -> bytes:
        """Give the message that comes within the time: one, though a stream bring two at once."""
        self.socket.settimeout(timeout)
        try:
            data = self._unread or self.socket.recv(65536)
            if self.transport == "udp":
                return data
            while (end := _end(data)) > len(data):
                more = self.socket.recv(65536)
                if not more:
                    break
                data += more
        except (TimeoutError, ConnectionError):
            return b""
        self._unread = data[end:]
        return data[:end]

    def is_closed(self, timeout: float = 3.0) -> bool:
        """Tell whether the other end closed the connection without a byte."""
        self.socket.settimeout(timeout)
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def ask(source: str, target: tuple[str, int], transport: str = "udp", **more: object) -> bytes:
    """Send one request from a source and give the answer."""
    with Sender(source, target, transport) as sender:
        return sender.ask(**more)  # type: ignore[arg-type]


class Upstream:
    """Answers every UDP request with 200, and remembers all that came."""

    def __init__(self, address: str = "127.0.4.1") -> None:
        self.socket = socket.socket(
            socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM
        )
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.socket.bind((address, 0))
        self.socket.settimeout(0.05)
        self.address, self.port = address, self.socket.getsockname()[1]
        self.received: list[bytes] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def uri(self) -> str:
        """Name it as the settings do."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"sip:{host}:{self.port}"

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:  # a timeout of its own: select() knows no more than 1,024 open files
                data, peer = self.socket.recvfrom(65536)
            except TimeoutError:
                continue
            self.received.append(data)
            with contextlib.suppress(OSError):
                self._answer(data, peer)

    def _answer(self, data: bytes, peer: tuple[str, int]) -> None:
        if data.startswith((b"ACK ", b"SIP/")):
            return
        keep = (b"via:", b"from:", b"to:", b"call-id:", b"cseq:", b"record-route:")
        head = [line for line in data.split(b"\r\n") if line.lower().startswith(keep)]
        head = [
            line + b";tag=up" if line.lower().startswith(b"to:") and b"tag=" not in line else line
            for line in head
        ]
        self.socket.sendto(
            b"\r\n".join([b"SIP/2.0 200 OK", *head, b"Content-Length: 0", b"", b""]), peer
        )

    def saw(self, source: str) -> bool:
        """Tell whether anything of a source's came here."""
        return any(source.encode() in data for data in self.received)

    def stop(self) -> None:
        """Close the port."""
        self._stop.set()
        self._thread.join()
        self.socket.close()
