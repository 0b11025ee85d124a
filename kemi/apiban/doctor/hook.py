"""Does the running Kamailio really ask us about what it receives? One harmless message tells.

Its UDP sockets for SIP are those that all its workers share: what a module opened is each worker's
own. Its TCP listeners are with one process alone, which is none of the workers.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from apiban.address import Family
from apiban.doctor.finding import Finding, fail, note, ok
from apiban.gate.board import Slot

__all__ = [
    "Listener",
    "Transport",
    "check_hook",
    "check_workers",
    "find_listeners",
    "open_sockets",
    "wake",
]

Transport = Literal["udp", "tcp"]

_PROC: Final = Path("/proc")
# The states of sockets in /proc/net: an unconnected UDP socket, and a TCP one that listens.
_STATES: Final[dict[Transport, str]] = {"udp": "07", "tcp": "0A"}
_ANSWER_WITHIN: Final = 0.5
# What native code counts is on the board at the next tick of rtimer, 0.2 s apart.
_COUNTED_WITHIN: Final = 2.0
_POLL: Final = 0.02
_TRIES: Final = 4
_MEND: Final = (
    "received_route_mode=1, and in a native configuration the include's"
    " event_route[core:msg-received], or yours beginning with route(APIBAN_RECEIVED); in KEMI"
    ' kemi.received_route_callback="ksr_received" or the include (docs/kemi.md)'
)


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a Kamailio receives SIP: an address that can be sent to from this host."""

    transport: Transport
    family: Family
    address: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.family == 6 else self.address
        return f"{self.transport}:{host}:{self.port}"


def open_sockets(pids: Iterable[int], proc: Path = _PROC) -> list[frozenset[int]] | None:
    """Give for each of these processes the inodes of the sockets that it has open.

    None when they are not ours to see: for that one must be root, or their user.
    """
    found = []
    for pid in pids:
        inodes = set()
        try:
            handles = list((proc / str(pid) / "fd").iterdir())
        except OSError:
            return None
        for handle in handles:
            with contextlib.suppress(OSError):  # it was closed meanwhile
                target = str(handle.readlink())
                if target.startswith("socket:["):
                    inodes.add(int(target[8:-1]))
        found.append(frozenset(inodes))
    return found


def find_listeners(
    transport: Transport, family: Family, table: str, inodes: frozenset[int]
) -> list[Listener]:
    """Find the listening ones among these sockets in the text of a table of /proc/PID/net."""
    found = []
    for line in table.splitlines()[1:]:
        words = line.split()
        if words[3] == _STATES[transport] and int(words[9]) in inodes:
            host, _, port = words[1].partition(":")
            raw = b"".join(
                # Words of 32 bits, each in this machine's order.
                int(host[at : at + 8], 16).to_bytes(4, "little")
                for at in range(0, len(host), 8)
            )
            if not any(raw):  # every address of this host: loopback is one
                raw = b"\x7f\x00\x00\x01" if family == 4 else b"\0" * 15 + b"\x01"
            kind = socket.AF_INET if family == 4 else socket.AF_INET6
            found.append(Listener(transport, family, socket.inet_ntop(kind, raw), int(port, 16)))
    return found


def wake(listener: Listener) -> bool:
    """Send an OPTIONS that goes nowhere (Max-Forwards is 0); tell whether an answer came.

    Raises:
        OSError: it cannot be sent.

    """
    family = socket.AF_INET if listener.family == 4 else socket.AF_INET6
    kind = socket.SOCK_DGRAM if listener.transport == "udp" else socket.SOCK_STREAM
    with socket.socket(family, kind) as sender:
        sender.settimeout(_ANSWER_WITHIN)
        sender.connect((listener.address, listener.port))
        host, port = sender.getsockname()[:2]
        sender.sendall(_options(listener, f"[{host}]" if listener.family == 6 else host, port))
        try:
            return bool(sender.recv(4096))
        except OSError:
            return False


def check_hook(
    listeners: Sequence[Listener],
    *,
    counted: Callable[[], int],
    send: Callable[[Listener], bool] = wake,
    sleep: Callable[[float], None] = time.sleep,
) -> Finding:
    """Send a message to Kamailio, and see whether the counters move; this host is exempt.

    ``counted`` gives how many messages were judged so far, by all workers. Other traffic moves the
    counters too: that proves as much.
    """
    refused = ""
    for listener in listeners[:_TRIES]:
        before = counted()
        try:
            answered = send(listener)
        except OSError as error:
            refused = f"{listener}: {error.strerror or 'no answer in time'}"
            continue
        for _ in range(round(_COUNTED_WITHIN / _POLL)):
            if counted() > before:
                how = "an answer came" if answered else "no answer came"
                return ok("hook", f"on: an OPTIONS to {listener} was judged ({how})")
            sleep(_POLL)
    if not listeners:
        return note("hook", "no SIP socket of Kamailio is found", "see its listen lines")
    if refused:
        return note("hook", f"no message could be sent: {refused}")
    names = ", ".join(str(listener) for listener in listeners[:_TRIES])
    return fail("hook", f"off: nobody judged an OPTIONS to {names}: nothing is dropped", _MEND)


def check_workers(before: Sequence[Slot], after: Sequence[Slot], *, generation: int) -> Finding:
    """Tell whether the workers that judged a message between two looks use the list in force.

    ``generation`` was the list's at the first look. One that meets no packet runs no Python, and
    needs no list until it does.
    """
    counts = {slot.rank: slot.counts for slot in before}
    awake = [
        slot for slot in after if slot.rank > 0 and counts.get(slot.rank) not in (None, slot.counts)
    ]
    behind = [slot for slot in awake if slot.generation < generation]
    if behind:
        worst = min(behind, key=lambda slot: slot.generation)
        return fail(
            "workers",
            f"{len(behind)} of {len(awake)} judge by an old list: worker {worst.rank} (process"
            f" {worst.pid}) by generation {worst.generation}, not {generation}",
            "see the folders above, and event=fault in Kamailio's log; kamcmd app_python.reload",
        )
    idle = [
        slot
        for slot in after
        if slot.rank > 0 and slot not in awake and slot.generation < generation
    ]
    asleep = f"; {len(idle)} took no message since it was published" if idle else ""
    return ok("workers", f"in step with generation {generation}{asleep}")


def _options(listener: Listener, host: str, port: int) -> bytes:
    number = os.urandom(8).hex()
    at = f"[{listener.address}]" if listener.family == 6 else listener.address
    return (
        f"OPTIONS sip:apiban-doctor@{at}:{listener.port} SIP/2.0\r\n"
        f"Via: SIP/2.0/{listener.transport.upper()} {host}:{port};branch=z9hG4bK{number};rport\r\n"
        "Max-Forwards: 0\r\n"
        f"From: <sip:apiban-doctor@{host}>;tag={number}\r\n"
        f"To: <sip:apiban-doctor@{at}>\r\n"
        f"Call-ID: {number}@{host}\r\n"
        "CSeq: 1 OPTIONS\r\n"
        "User-Agent: apiban-doctor\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode("ascii")
