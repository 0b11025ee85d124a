"""The list in the words of other firewalls, line by line."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from apiban.address import Family, Network
from apiban.snapshot import Snapshot
from apiban.snapshot.format import FOREVER

__all__ = ["DIALECTS", "Dialect", "Listing"]

# The longest time that ipset knows.
_LONGEST_IPSET: Final = 2_147_483
# A router that was forgotten forgets, too: it has no ban for good.
_LONGEST_MIKROTIK: Final = 28 * 86400
_ROOM: Final = 1 << 20  # of an ipset, at least


@dataclass(frozen=True, slots=True)
class Listing:
    """A list at ``now``, of these families, under the name that its sets or tables shall have."""

    snapshot: Snapshot
    families: tuple[Family, ...]
    name: str
    now: float

    def blocks(self, family: Family) -> Iterator[tuple[Network, int | None]]:
        """Give a family's CIDR blocks, and for how many seconds yet; None is for good."""
        kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
        for of, (first, last, expires, _) in self.snapshot.ranges():
            if of != family or expires <= self.now:
                continue
            left = None if expires == FOREVER else max(int(expires - self.now), 1)
            if first == last:
                yield Network(family, first, last), left
                continue
            for one in ipaddress.summarize_address_range(kind(first), kind(last)):
                start = int(one.network_address)
                yield Network(family, start, start + one.num_addresses - 1), left

    @property
    def head(self) -> str:
        """What stands above it, behind a ``#``."""
        made = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.now))
        return f"# APIBAN, generation {self.snapshot.generation}, {made} UTC"


Dialect = Callable[[Listing], Iterable[str]]


def _plain(listing: Listing) -> Iterator[str]:
    """Give an address or a CIDR block a line, and nothing else."""
    return (str(one) for family in listing.families for one, _ in listing.blocks(family))


def _cidr(listing: Listing) -> Iterator[str]:
    """Give the same, with the prefix of single addresses, too."""
    return (_cidr_of(one) for family in listing.families for one, _ in listing.blocks(family))


def _cidr_of(one: Network) -> str:
    return f"{one}/{one.prefix}" if one.is_host else str(one)


def _ipset(listing: Listing) -> Iterator[str]:
    """Write for ``ipset restore``: a new set is filled, and then takes the old one's place."""
    yield listing.head
    for family in listing.families:
        name = f"{listing.name}{family}"
        new = f"{name}-new"
        number = sum(1 for _ in listing.blocks(family))
        room = max(_ROOM, 1 << number.bit_length())
        kind = "inet" if family == 4 else "inet6"
        made = f"hash:net family {kind} maxelem {room} timeout 0"
        yield f"create {new} {made} -exist"
        yield f"flush {new}"
        for one, left in listing.blocks(family):
            for text in _halves(one):
                yield f"add {new} {text} timeout {min(left or 0, _LONGEST_IPSET)}"
        yield f"create {name} {made} -exist"
        yield f"swap {new} {name}"
        yield f"destroy {new}"


def _halves(one: Network) -> tuple[str, ...]:
    """Give a block as hash:net takes it, which has no room for a block of all addresses."""
    if one.prefix:
        return (str(one),)
    return ("0.0.0.0/1", "128.0.0.0/1") if one.family == 4 else ("::/1", "8000::/1")


def _nftables(listing: Listing) -> Iterator[str]:
    """Write for ``nft -f``: one transaction, in a table of its own."""
    table = f"inet {listing.name}"
    yield listing.head
    yield f"add table {table}"
    for family in listing.families:
        name, kind = f"ipv{family}", "ipv4_addr" if family == 4 else "ipv6_addr"
        yield f"add set {table} {name} {{ type {kind}; flags interval, timeout; }}"
        yield f"flush set {table} {name}"
        end = ""
        for one, left in listing.blocks(family):
            if not end:
                yield f"add element {table} {name} {{"
                end = "}"
            yield f"{one}," if left is None else f"{one} timeout {left}s,"
        yield from [end] if end else []


def _mikrotik(listing: Listing) -> Iterator[str]:
    """Write for RouterOS' ``/import``: each address anew; at the end goes what is not listed.

    A file that was cut short removes nothing. RouterOS writes a single IPv6 address with its
    prefix, an IPv4 address without.
    """
    yield listing.head
    mark = f'"{listing.name} {int(listing.now)}"'
    for family in listing.families:
        yield f"/{'ip' if family == 4 else 'ipv6'} firewall address-list"
        for one, left in listing.blocks(family):
            address = str(one) if family == 4 else _cidr_of(one)
            lasts = min(left or _LONGEST_MIKROTIK, _LONGEST_MIKROTIK)
            end = f"{lasts // 3600}h{lasts // 60 % 60}m{lasts % 60}s"
            yield f"remove [find where list={listing.name} address={address}]"
            yield f"add list={listing.name} address={address} timeout={end} comment={mark}"
        yield f"remove [find where list={listing.name} comment!={mark}]"


DIALECTS: Final[dict[str, Dialect]] = {
    "plain": _plain,
    "cidr": _cidr,
    "ipset": _ipset,
    "nftables": _nftables,
    "mikrotik": _mikrotik,
}
