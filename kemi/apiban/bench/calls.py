"""Good calls beside a flood: a caller that keeps to RFC 3261's timers, and to its own clock.

Each call is INVITE, 200, ACK, a short hold, BYE, 200. What is not answered is sent again after
T1 = 500 ms, then after twice as long each time. A call is lost when its INVITE or its BYE has no
good final answer within the patience (RFC 3261: 64*T1 = 32 s; less makes a measurement shorter,
and forgoes the last repetitions).

A process of its own, before all ordinary ones where the system allows it::

    python -m apiban.bench.calls 127.0.8.1:5060 --source 127.0.2.1 --rate 40 --seconds 5

It ends when its last call has ended, and prints one line of JSON: what ``Report`` holds.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import heapq
import json
import re
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from apiban.bench.machine import urgent
from apiban.bench.upstream import PRIORITY, T1, T2

__all__ = ["Caller", "Report", "main"]

_HOLD: Final = 0.1
_BUFFER: Final = 4 << 20
_STATUS: Final = re.compile(rb"SIP/2\.0 (\d{3}) ")
_NUMBER: Final = re.compile(rb"^Call-ID:[ \t]*+good-(\d++)@", re.MULTILINE)
_INVITED: Final = re.compile(rb"^CSeq:[ \t]*+1[ \t]++INVITE", re.MULTILINE)
_TO: Final = re.compile(rb"^To:[^\r]*+\r\n", re.MULTILINE)
_CONTACT: Final = re.compile(rb"^Contact:[^<\r]*+<([^>\r]++)>", re.MULTILINE)
_ROUTE: Final = re.compile(rb"^Record-Route:[ \t]*+([^\r]++)\r\n", re.MULTILINE)
_SDP: Final = (
    "v=0\r\no=peer 53655765 2353687637 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
    "m=audio 6000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of the calls; times in seconds."""

    began: float  # on the machine's monotonic clock
    ended: float
    calls: int
    lost: int
    refused: int  # of the lost: those with a final answer other than 200
    repeated: int  # messages sent again
    setups: tuple[float, ...]  # from the first INVITE to the 200, of the calls that were set up
    lateness: tuple[float, ...]  # how much later than planned each call began
    urgent: bool  # whether the caller ran before ordinary processes


@dataclass(slots=True)
class _Call:
    began: float
    waits_for: str = "INVITE"  # or BYE; nothing once it is over
    tries: int = 0
    quiet: bool = False  # a provisional answer came: the INVITE is not sent again
    acknowledgement: bytes = b""
    goodbye: bytes = b""


class Caller:
    """The calls of one source; it never looks at a clock by itself."""

    def __init__(  # noqa: PLR0913 - each is one thing a measurement varies
        self,
        target: str,
        source: str,
        *,
        rate: float,
        seconds: float,
        patience: float,
        began: float,
    ) -> None:
        """``target`` and ``source`` are address:port; ``began`` is when the first call is due."""
        self._target, self._source, self._patience = target, source, patience
        count = max(1, round(rate * seconds))
        self._due: list[tuple[float, int, str]] = [
            (began + number / rate, number, "call") for number in range(count)
        ]
        self._calls: dict[int, _Call] = {}
        self._open = count
        self.lost = self.refused = self.repeated = 0
        self.setups: list[float] = []
        self.lateness: list[float] = []

    @property
    def calls(self) -> int:
        """How many calls have begun."""
        return len(self._calls)

    @property
    def done(self) -> bool:
        """Whether all calls have begun and ended."""
        return not self._open

    def wait(self, now: float) -> float:
        """Give the seconds until something is due."""
        return max(self._due[0][0] - now, 0.0) if self._due else 0.0

    def send(self, now: float) -> list[bytes]:
        """Give the messages that are due."""
        found: list[bytes] = []
        while self._due and self._due[0][0] <= now:
            when, number, what = heapq.heappop(self._due)
            if what == "call":
                self._calls[number] = _Call(began=now)
                self.lateness.append(now - when)
                self._later(now + self._patience, number, "lost INVITE")
            call = self._calls[number]
            if what == "hold":
                call.waits_for, call.tries = "BYE", 0
                self._later(now + self._patience, number, "lost BYE")
            if what == f"lost {call.waits_for}":
                self._lose(call)
            elif what in {"call", "hold", call.waits_for}:
                found += self._transmit(call, number, now)
        return found

    def _transmit(self, call: _Call, number: int, now: float) -> list[bytes]:
        """Send an INVITE or a BYE, for the first time or again."""
        invite = call.waits_for == "INVITE"
        if invite and call.quiet:
            return []
        self.repeated += call.tries > 0
        self._later(now + min(T1 * 2**call.tries, 1e9 if invite else T2), number, call.waits_for)
        call.tries += 1
        return [self._invite(number) if invite else call.goodbye]

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """Give what is to be sent upon a message."""
        status, number = _STATUS.match(data), _NUMBER.search(data)
        call = self._calls.get(int(number[1])) if number else None
        if status is None or number is None or call is None:
            return []
        code = int(status[1])
        if not _INVITED.search(data):
            if call.waits_for == "BYE" and code >= 200:
                if code == 200:
                    self._end(call)
                else:
                    self._lose(call, refused=True)
            return []
        if call.waits_for == "INVITE" and code >= 200:
            return self._answered(call, int(number[1]), data, code, now)
        call.quiet = True
        # Who sends a final answer again has not seen its ACK.
        return [call.acknowledgement] if code >= 200 and call.acknowledgement else []

    def _answered(
        self, call: _Call, number: int, data: bytes, code: int, now: float
    ) -> list[bytes]:
        to, contact = _TO.search(data), _CONTACT.search(data)
        head = to[0].decode() if to else ""
        if code == 200:
            self.setups.append(now - call.began)
            call.waits_for = ""
            uri = contact[1].decode() if contact else f"sip:service@{self._target}"
            # The nearest proxy has written the first line: the caller's own order is backwards.
            head += "".join(f"Route: {one.decode()}\r\n" for one in reversed(_ROUTE.findall(data)))
            call.acknowledgement = self._request(f"ACK {uri}", number, "1 ACK", head)
            call.goodbye = self._request(f"BYE {uri}", number, "2 BYE", head)
            self._later(now + _HOLD, number, "hold")
        else:
            start = f"ACK sip:service@{self._target}"
            call.acknowledgement = self._request(start, number, "1 ACK", head, branch="INVITE")
            self._lose(call, refused=True)
        return [call.acknowledgement]

    def _lose(self, call: _Call, *, refused: bool = False) -> None:
        self.lost += 1
        self.refused += refused
        self._end(call)

    def _end(self, call: _Call) -> None:
        call.waits_for = ""
        self._open -= 1

    def _later(self, when: float, number: int, what: str) -> None:
        heapq.heappush(self._due, (when, number, what))

    def _invite(self, number: int) -> bytes:
        host = self._source.rpartition(":")[0]
        uri = f"sip:service@{self._target}"
        head = (
            f"To: <{uri}>\r\nContact: <sip:peer@{self._source}>\r\n"
            "Content-Type: application/sdp\r\n"
        )
        return self._request(f"INVITE {uri}", number, "1 INVITE", head, body=_SDP.format(host=host))

    def _request(  # noqa: PLR0913 - what differs between three requests
        self, start: str, number: int, cseq: str, head: str, *, body: str = "", branch: str = ""
    ) -> bytes:
        """Give a request; ``head`` holds the lines that only it has, To among them.

        Each method is a transaction of its own, but for the ACK of a refusal: its ``branch`` is
        that of the INVITE.
        """
        branch = f"z9hG4bK-good-{branch or cseq[2:]}-{number}"
        return (
            f"{start} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self._source};branch={branch};rport\r\n"
            f"From: <sip:peer@{self._source}>;tag=good-{number}\r\n"
            f"Call-ID: good-{number}@{self._source}\r\nCSeq: {cseq}\r\n"
            f"Max-Forwards: 70\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the calls, and print what came of them."""
    parser = argparse.ArgumentParser(prog="calls", description=__doc__)
    parser.add_argument("target", help="address:port")
    parser.add_argument("--source", required=True, help="address")
    parser.add_argument("--rate", type=float, required=True, help="calls a second")
    parser.add_argument("--seconds", type=float, required=True, help="of new calls")
    parser.add_argument("--patience", type=float, default=64 * T1, help="seconds")
    options = parser.parse_args(arguments)
    host, _, port = options.target.rpartition(":")
    first = urgent(PRIORITY + 10)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        one.bind((options.source, 0))
        one.connect((host, int(port)))
        began = time.monotonic()
        caller = Caller(
            options.target,
            f"{options.source}:{one.getsockname()[1]}",
            rate=options.rate,
            seconds=options.seconds,
            patience=options.patience,
            began=began,
        )
        _call(caller, one)
    report = Report(
        began=began,
        ended=time.monotonic(),
        calls=caller.calls,
        lost=caller.lost,
        refused=caller.refused,
        repeated=caller.repeated,
        setups=tuple(caller.setups),
        lateness=tuple(caller.lateness),
        urgent=first,
    )
    sys.stdout.write(json.dumps(dataclasses.asdict(report)) + "\n")
    return 0


def _call(caller: Caller, one: socket.socket) -> None:
    while not caller.done:
        for message in caller.send(time.monotonic()):
            one.send(message)
        select.select([one], [], [], caller.wait(time.monotonic()))
        with contextlib.suppress(BlockingIOError):
            while True:
                data = one.recv(65535, socket.MSG_DONTWAIT)
                for message in caller.receive(data, time.monotonic()):
                    one.send(message)


if __name__ == "__main__":
    sys.exit(main())
