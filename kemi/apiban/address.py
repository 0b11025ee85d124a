"""Addresses and networks as integers.

A network is a closed range of integers, so that hosts, CIDR blocks, IPv4 and IPv6 are one thing
to the store and the snapshot. An IPv4-mapped IPv6 address (``::ffff:1.2.3.4``) *is* the IPv4
address: a dual-stack socket shows IPv4 sources that way.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Literal

from apiban.errors import AddressError

__all__ = ["Family", "Network", "is_loopback", "pack", "parse_address", "parse_network"]

Family = Literal[4, 6]

_MAPPED = bytes(10) + b"\xff\xff"
_WIDTH: dict[Family, int] = {4: 32, 6: 128}
_MAPPED_BLOCK = ipaddress.IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True, order=True)
class Network:
    """A block of addresses: ``first`` to ``last``, both inside, as integers of the family."""

    family: Family
    first: int
    last: int

    @property
    def prefix(self) -> int:
        """The prefix length: 32 or 128 for one host."""
        return _WIDTH[self.family] - (self.last - self.first).bit_length()

    @property
    def is_host(self) -> bool:
        """True for a single address."""
        return self.first == self.last

    def overlaps(self, other: Network) -> bool:
        """Tell whether the two have an address in common."""
        return self.family == other.family and self.first <= other.last and other.first <= self.last

    def __str__(self) -> str:
        host = (
            ipaddress.IPv4Address(self.first)
            if self.family == 4
            else ipaddress.IPv6Address(self.first)
        )
        return str(host) if self.is_host else f"{host}/{self.prefix}"

    def as_ipaddress(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """Give the same block as the standard library's type."""
        if self.family == 4:
            return ipaddress.IPv4Network((self.first, self.prefix))
        return ipaddress.IPv6Network((self.first, self.prefix))


def pack(text: str) -> bytes:
    """Turn an address as Kamailio writes it into 4 or 16 bytes; mapped IPv4 gives 4.

    Any spelling of IPv6 is taken (brackets, upper case, not compressed). This is the gate's path
    for a source it has not met: inet_pton takes a twentieth of the time of ``ipaddress``.

    Raises:
        AddressError: the text is no address.

    """
    try:
        if ":" not in text:
            return socket.inet_pton(socket.AF_INET, text)
        bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        raw = socket.inet_pton(socket.AF_INET6, bare)
    except (OSError, UnicodeError, ValueError):
        raise AddressError(f"not an IP address: {text[:64]!r}") from None
    return raw[12:] if raw.startswith(_MAPPED) else raw


def parse_address(text: str) -> Network:
    """Read one host address.

    Raises:
        AddressError: the text is no address (a network is not one either).

    """
    raw = pack(text.strip())
    number = int.from_bytes(raw, "big")
    return Network(4 if len(raw) == 4 else 6, number, number)


def is_loopback(host: str) -> bool:
    """Tell whether a host's name or address is this machine's own loopback."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_network(text: str) -> Network:
    """Read a host address or a CIDR block.

    Bits set beyond the prefix (``10.0.0.1/8``) are refused: such a text says two things at once,
    and taking the wider one could ban, or allow, a whole network by a slip.

    Raises:
        AddressError: the text is neither.

    """
    text = text.strip()
    host, slash, prefix = text.partition("/")
    if not slash:
        return parse_address(text)
    wrong = f"not an address or a network: {text[:64]!r}"
    if "%" in host or not (prefix.isascii() and prefix.isdecimal()):
        raise AddressError(wrong)
    try:
        block = ipaddress.ip_network(text)
    except ValueError as error:
        raise AddressError(f"{wrong} ({str(error)[:100]})") from None
    if isinstance(block, ipaddress.IPv6Network) and block.subnet_of(_MAPPED_BLOCK):
        mapped = int(block.network_address) & 0xFFFFFFFF
        block = ipaddress.IPv4Network((mapped, block.prefixlen - 96))
    family: Family = 4 if block.version == 4 else 6
    return Network(family, int(block.network_address), int(block.broadcast_address))
