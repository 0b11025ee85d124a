"""The host's own addresses: exactly those, never their subnets."""

from __future__ import annotations

import ifaddr

from apiban.address import Network, parse_address
from apiban.errors import AddressError

__all__ = ["own_addresses"]


def own_addresses() -> tuple[Network, ...]:
    """Give every address of every interface of this host, each as a single host."""
    found = set()
    for adapter in ifaddr.get_adapters():
        for address in adapter.ips:
            text = address.ip if isinstance(address.ip, str) else address.ip[0]
            try:
                found.add(parse_address(text.partition("%")[0]))
            except AddressError:
                continue
    return tuple(sorted(found))
