"""Which addresses no list of scanners on the internet may hold."""

from __future__ import annotations

from typing import Final

from apiban.address import Network, parse_network

__all__ = ["is_private"]

# Addresses that cannot be a scanner on the internet: somebody's own network, or no host at all.
_PRIVATE: Final = tuple(
    parse_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT: many customers each
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/3",  # multicast and reserved, with the broadcast address
        "::/127",  # the unspecified address and loopback
        "fc00::/7",
        "fe80::/10",
        "ff00::/8",
    )
)


def is_private(network: Network) -> bool:
    """Tell whether a network touches a private, local or reserved range."""
    return any(network.overlaps(private) for private in _PRIVATE)
