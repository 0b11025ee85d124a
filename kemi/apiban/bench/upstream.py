"""The upstream behind the proxy of the goodput measurement, fast enough for a relayed flood.

What a toll fraud dials (the flood's number) is answered 404 at once and forgotten: the cheapest
that a flood can be for the proxy in front. A good call is answered 180 and 200 at once, and the
200 is sent again until its ACK comes (RFC 3261, 13.3.1.4), since the proxy may lose it.

A process of its own, before all ordinary ones where the system allows it::

    python -m apiban.bench.upstream 127.0.4.1:5080

SIGTERM ends it; it prints one line of JSON: ``{"flood": messages, "good": messages, "cpu": s}``.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Final

from apiban.bench.machine import urgent

__all__ = ["FLOOD_NUMBER", "PRIORITY", "T1", "T2", "Upstream", "main"]

FLOOD_NUMBER: Final = b"sip:0049"
PRIORITY: Final = 10
T1: Final = 0.5
T2: Final = 4.0

_GIVE_UP: Final = 64 * T1
_BUFFER: Final = 32 << 20
_READ_AT_ONCE: Final = 64  # then what is due again has its turn
_COPIED: Final = re.compile(
    rb"^(?:Via|Record-Route|From|Call-ID|CSeq|To):[^\r]*+\r\n", re.MULTILINE
)
_CALL_ID: Final = re.compile(rb"^Call-ID:[ \t]*+([^\r]++)\r\n", re.MULTILINE)


class Upstream:
    """Answers requests; it never looks at a clock by itself."""

    def __init__(self, contact: str) -> None:
        """``contact`` is its own address:port."""
        self.flood = self.good = 0  # INVITEs
        self._contact = f"Contact: <sip:service@{contact}>\r\n".encode()
        self._unacknowledged: dict[bytes, bytes] = {}
        self._due: list[tuple[float, float, bytes]] = []  # when, the next pause, the call

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """Give the answers to a message."""
        method = data[:4]
        if method == b"INVI":
            if data.startswith(FLOOD_NUMBER, 7):
                self.flood += 1
                return [_answer(data, b"404 Not Found", b"404")]
            return self._invited(data, now)
        if method == b"ACK ":
            if not data.startswith(FLOOD_NUMBER, 4):
                self._unacknowledged.pop(_call(data), None)
            return []
        return [_answer(data, b"200 OK", b"uas")] if method == b"BYE " else []

    def _invited(self, data: bytes, now: float) -> list[bytes]:
        self.good += 1
        call = _call(data)
        if call not in self._unacknowledged:
            self._unacknowledged[call] = _answer(data, b"200 OK", b"uas", self._contact)
            heapq.heappush(self._due, (now + T1, 2 * T1, call))
        ringing = _answer(data, b"180 Ringing", b"uas", self._contact)
        return [ringing, self._unacknowledged[call]]

    def again(self, now: float) -> list[bytes]:
        """Give the answers that are due again."""
        found = []
        while self._due and self._due[0][0] <= now:
            when, pause, call = heapq.heappop(self._due)
            if call in self._unacknowledged:
                found.append(self._unacknowledged[call])
                heapq.heappush(self._due, (when + pause, min(2 * pause, T2), call))
        return found

    def wait(self, now: float) -> float:
        """Give the seconds until something is due."""
        return max(self._due[0][0] - now, 0.0) if self._due else _GIVE_UP


def _call(data: bytes) -> bytes:
    found = _CALL_ID.search(data)
    return found[1] if found else b""


def _answer(request: bytes, status: bytes, tag: bytes, more: bytes = b"") -> bytes:
    copied = b"".join(_COPIED.findall(request))
    head, to, rest = copied.partition(b"\r\nTo:")
    value, end, rest = rest.partition(b"\r\n")
    if b";tag=" not in value:
        value += b";tag=" + tag
    start = b"SIP/2.0 %b\r\n" % status
    return start + head + to + value + end + rest + more + b"Content-Length: 0\r\n\r\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer until SIGTERM comes, and print what was seen."""
    parser = argparse.ArgumentParser(prog="upstream", description=__doc__)
    parser.add_argument("listen", help="address:port")
    listen = parser.parse_args(arguments).listen
    host, _, port = listen.rpartition(":")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    urgent(PRIORITY)
    upstream = Upstream(listen)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        _make_room(one)
        one.bind((host, int(port)))
        with contextlib.suppress(KeyboardInterrupt):
            _serve(upstream, one)
    report = {"flood": upstream.flood, "good": upstream.good, "cpu": time.process_time()}
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


def _make_room(one: socket.socket) -> None:
    so_rcvbufforce = 33  # asm-generic/socket.h: beyond the system's limit, for root
    try:
        one.setsockopt(socket.SOL_SOCKET, so_rcvbufforce, _BUFFER)
    except PermissionError:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)


def _serve(upstream: Upstream, one: socket.socket) -> None:
    peer: tuple[str, int] | None = None
    while True:
        now = time.monotonic()
        if peer is not None:
            for message in upstream.again(now):
                one.sendto(message, peer)
        select.select([one], [], [], upstream.wait(now))
        with contextlib.suppress(BlockingIOError):
            for _ in range(_READ_AT_ONCE):
                data, peer = one.recvfrom(65535, socket.MSG_DONTWAIT)
                for message in upstream.receive(data, now):
                    one.sendto(message, peer)


if __name__ == "__main__":
    sys.exit(main())
