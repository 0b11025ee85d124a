"""A flood of SIP requests over UDP, faster than Kamailio can take it.

SIPp sends some 40,000 messages a second here, less than a dropping worker takes. This one hands
the kernel up to 60 messages in one system call, which cuts them apart at the receiving socket
(UDP segmentation offload, udp(7): UDP_SEGMENT): about two million a second on loopback.

It runs as a process of its own, on a core of its own::

    python -m apiban.bench.flood 127.0.0.1:5060 --sources 127.0.9.1-50 --packets 100000 --rate 0

and prints one line of JSON: ``{"began": s, "sent": packets, "seconds": s, "cpu": s}``; ``began``
is on the machine's monotonic clock. SIGTERM ends it early.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

__all__ = ["BURST", "MESSAGES", "Source", "flood", "main", "messages", "sources"]

_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103  # linux/udp.h
BURST: Final = 60  # segments that the kernel takes in one call, at most 64
_NUMBER: Final = b"@" * 10

MESSAGES: Final = {
    # One message again and again: what a scanner sends, and Kamailio drops or answers.
    "options": (
        "OPTIONS sip:100@{host} SIP/2.0\r\n"
        "Via: SIP/2.0/UDP {source}:{port};branch=z9hG4bK-524287-1---0123456789abcdef;rport\r\n"
        'From: "sipvicious"<sip:100@1.1.1.1>;tag=3137333230303a35303630\r\n'
        'To: "sipvicious"<sip:100@1.1.1.1>\r\nCall-ID: 845193842134534@{source}\r\n'
        "CSeq: 1 OPTIONS\r\nContact: sip:100@{source}:{port}\r\nUser-Agent: friendly-scanner\r\n"
        "Max-Forwards: 70\r\nAccept: application/sdp\r\nContent-Length: 0\r\n\r\n"
    ),
    # Each one a new call: what a proxy without protection would relay.
    "invite": (
        "INVITE sip:0049301234567@{host} SIP/2.0\r\n"
        "Via: SIP/2.0/UDP {source}:{port};branch=z9hG4bK-@@@@@@@@@@;rport\r\n"
        "From: <sip:100@{host}>;tag=@@@@@@@@@@\r\nTo: <sip:0049301234567@{host}>\r\n"
        "Call-ID: @@@@@@@@@@@{source}\r\nCSeq: 1 INVITE\r\nContact: <sip:100@{source}:{port}>\r\n"
        "User-Agent: friendly-scanner\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    ),
}


def sources(text: str) -> list[str]:
    """Read ``127.0.9.1-50`` as fifty addresses; a single one is itself; a comma parts several."""
    found = []
    for part in text.split(","):
        stem, _, last = part.partition("-")
        network, _, first = stem.rpartition(".")
        found += [f"{network}.{number}" for number in range(int(first), int(last or first) + 1)]
    return found


def messages(kind: str, source: str, port: int, host: str) -> Iterator[bytes]:
    """Give bursts of ``BURST`` messages of one length, for ever; each INVITE is a new one."""
    text = MESSAGES[kind].format(host=host, source=source, port=port).encode()
    if _NUMBER not in text:
        while True:
            yield text * BURST
    # Eight digits a burst and two within it: one replacement makes a burst of new calls.
    numbered = b"".join(text.replace(_NUMBER, _NUMBER[:8] + b"%02d" % one) for one in range(BURST))
    # Another address, another process, another million of bursts.
    for number in itertools.count(hash((source, os.getpid())) % 90 * 1_000_000):
        yield numbered.replace(_NUMBER[:8], b"%08d" % number)


class Source:
    """One address that floods."""

    def __init__(self, address: str, target: tuple[str, int], kind: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 0))
        self._socket.connect(target)
        port = self._socket.getsockname()[1]
        self._bursts = messages(kind, address, port, target[0])
        self._length = len(next(self._bursts)) // BURST
        self._socket.setsockopt(_SOL_UDP, _UDP_SEGMENT, self._length)

    def send(self, count: int) -> None:
        """Send up to ``BURST`` messages."""
        burst = next(self._bursts)
        self._socket.send(burst if count >= BURST else burst[: count * self._length])

    def close(self) -> None:
        """Close its socket."""
        self._socket.close()


def flood(senders: Sequence[Source], *, packets: int, rate: float, burst: int) -> int:
    """Send packets at a rate (a second; 0: as fast as can be); give how many were sent.

    An interrupt ends it before.
    """
    began = time.perf_counter()
    turn = itertools.cycle(senders)
    sent = 0
    with contextlib.suppress(KeyboardInterrupt):
        while sent < packets:
            if rate:
                ahead = sent / rate - (time.perf_counter() - began)
                if ahead > 0:
                    time.sleep(ahead)
            count = min(burst, packets - sent)
            next(turn).send(count)
            sent += count
    return sent


def main(arguments: Sequence[str] | None = None) -> int:
    """Flood, and print what was sent."""
    parser = argparse.ArgumentParser(prog="flood", description=__doc__)
    parser.add_argument("target", help="address:port")
    parser.add_argument("--sources", type=sources, required=True)
    parser.add_argument("--packets", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--burst", type=int, default=BURST, choices=range(1, BURST + 1))
    parser.add_argument("--kind", choices=sorted(MESSAGES), default="options")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it reports when it is ended early
    host, _, port = options.target.rpartition(":")
    target = (host, int(port))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for each source
    senders = [Source(address, target, options.kind) for address in options.sources]
    began, cpu = time.perf_counter(), time.process_time()
    sent = flood(senders, packets=options.packets, rate=options.rate, burst=options.burst)
    report = {
        "began": began,
        "sent": sent,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
    }
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
