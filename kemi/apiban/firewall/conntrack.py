"""Connections of sources that were just banned: taken out of the kernel's conntrack.

Our own nftables chain drops their packets without it. It is for what a packet meets before that, or
in its place: flowtables, and the rules of others before ours in iptables that accept what belongs
to a connection; and for the room that the entries take. They are looked for once, by the tool
``conntrack``, one process each for IPv4 and IPv6, and removed by name: what comes next is a new
connection, and meets the ban.
"""

from __future__ import annotations

import socket
import time
from bisect import bisect
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from apiban.address import Family
from apiban.errors import FirewallError
from apiban.firewall.ctnetlink import Flow, parse_flow, remove
from apiban.firewall.elements import Block
from apiban.firewall.rules import Port
from apiban.firewall.tool import stream

__all__ = ["Cut", "cut", "tracked"]

_COUNT: Final = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_AF: Final[dict[Family, int]] = {4: socket.AF_INET, 6: socket.AF_INET6}
_FAMILIES: Final[dict[Family, str]] = {4: "ipv4", 6: "ipv6"}
_LEAST: Final = 0.1


class Stream(Protocol):
    """Runs a tool and gives its lines: ``tool.stream``."""

    def __call__(self, words: tuple[str, ...], text: str = "", *, within: float) -> Iterator[str]:
        """Give the lines; FirewallError when it fails."""
        ...


@dataclass(frozen=True, slots=True)
class Cut:
    """How many connections were removed, and why not all; empty when nothing went wrong."""

    removed: int
    trouble: str = ""


def tracked() -> int:
    """Give how many connections the kernel knows, in this network namespace.

    Raises:
        FirewallError: it tracks none.

    """
    try:
        return int(_COUNT.read_text(encoding="ascii"))
    except FileNotFoundError:
        raise FirewallError(
            "conntrack: the kernel tracks no connections (its module nf_conntrack is not loaded)"
        ) from None
    except (OSError, ValueError) as error:
        raise FirewallError(f"conntrack: {_COUNT} cannot be read: {error}") from None


def cut(  # noqa: PLR0913 - the outside world comes in as arguments
    blocks: Collection[Block],
    *,
    allowed: Collection[Block] = (),
    ports: tuple[Port, ...] = (),
    begun_here: bool = True,
    within: float = 5.0,
    tracked: Callable[[], int] = tracked,
    stream: Stream = stream,
    remove: Callable[[Sequence[Flow]], Iterator[bool]] = remove,
    uptime: Callable[[], float] = time.monotonic,
) -> Cut:
    """Remove the connections of banned blocks: those that they began to one of ``ports``.

    No ports are all. With ``begun_here`` also those that began at this host, or behind it, and that
    a banned block answers to such a port. An address in ``allowed``, which are blocks that do not
    overlap, is not banned. It takes ``within`` seconds at most, and never raises.
    """
    if not blocks:
        return Cut(0)
    deadline = uptime() + within
    try:
        if not tracked():
            return Cut(0)
    except FirewallError as error:
        return Cut(0, str(error))
    guarded = _Guarded(ports, begun_here=begun_here)
    found: list[Flow] = []
    removed = 0
    troubles = []
    try:
        # Half of the time is for the removal.
        for flow in _found(
            blocks, allowed, guarded, stream, lambda: deadline - within / 2 - uptime()
        ):
            found.append(flow)  # noqa: PERF402 - what was found counts also when the rest fails
    except FirewallError as error:
        troubles.append(str(error))
    try:
        for number, was_there in enumerate(remove(found), start=1):
            removed += was_there
            if uptime() > deadline and number < len(found):
                troubles.append(f"conntrack: no time for {len(found) - number} connections more")
                break
    except FirewallError as error:
        troubles.append(str(error))
    return Cut(removed, next(iter(troubles), ""))


def _found(
    blocks: Collection[Block],
    allowed: Collection[Block],
    guarded: _Guarded,
    stream: Stream,
    left: Callable[[], float],
) -> Iterator[Flow]:
    """Give the connections that are to be cut."""
    for family, name in _FAMILIES.items():
        banned = _Banned(_Blocks(blocks, family), _Blocks(allowed, family))
        if not banned:
            continue
        for line in stream(("conntrack", "-L", "-f", name), within=max(left(), _LEAST)):
            flow = parse_flow(line)
            if flow is not None and guarded.has(flow, banned):
                yield flow


class _Banned:
    """Who is in a banned block, and in no allowed one."""

    def __init__(self, blocks: _Blocks, allowed: _Blocks) -> None:
        self._blocks = blocks
        self._allowed = allowed

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def __contains__(self, text: str) -> bool:
        return text in self._blocks and text not in self._allowed


class _Blocks:
    """Blocks of one family, to look addresses up in."""

    def __init__(self, blocks: Collection[Block], family: Family) -> None:
        self._family = family
        self._hosts = {first for of, first, last in blocks if of == family and first == last}
        self._ranges = sorted(
            (first, last) for of, first, last in blocks if of == family and first != last
        )

    def __bool__(self) -> bool:
        return bool(self._hosts or self._ranges)

    def __contains__(self, text: str) -> bool:
        try:
            address = int.from_bytes(socket.inet_pton(_AF[self._family], text), "big")
        except OSError:
            return False
        if address in self._hosts:
            return True
        at = bisect(self._ranges, address, key=lambda one: one[0])
        return at > 0 and address <= self._ranges[at - 1][1]


class _Guarded:
    """Which connections of banned sources are to be cut."""

    def __init__(self, ports: tuple[Port, ...], *, begun_here: bool) -> None:
        self._ports = ports
        self._begun_here = begun_here

    def has(self, flow: Flow, banned: _Banned) -> bool:
        """Tell whether this is one."""
        if flow.caller in banned and self._is_chosen(flow.protocol, flow.port, flow.real_port):
            return True
        # What the one who was called sends goes to the caller's port.
        return (
            self._begun_here
            and flow.answerer in banned
            and self._is_chosen(flow.protocol, flow.real_caller_port, flow.caller_port)
        )

    def _is_chosen(self, protocol: str, *ports: int) -> bool:
        return not self._ports or any(
            one.protocol == protocol and one.first <= port <= one.last
            for one in self._ports
            for port in ports
        )
