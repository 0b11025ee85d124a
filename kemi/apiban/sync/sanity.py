"""What a feed may list: a page is not trusted just because it came over TLS."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from apiban.address import Network, parse_network
from apiban.settings.model import FeedSettings

__all__ = ["Refusal", "sift"]

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


@dataclass(frozen=True, slots=True)
class Refusal:
    """A network that is not taken, and why."""

    network: Network
    reason: str


def sift(
    networks: Iterable[Network], settings: FeedSettings
) -> tuple[list[Network], list[Refusal]]:
    """Divide a page into what is taken and what is refused."""
    taken: list[Network] = []
    refused: list[Refusal] = []
    for network in networks:
        reason = _reason(network, settings)
        if reason:
            refused.append(Refusal(network, reason))
        else:
            taken.append(network)
    return taken, refused


def _reason(network: Network, settings: FeedSettings) -> str:
    widest = settings.widest_ipv4 if network.family == 4 else settings.widest_ipv6
    if network.prefix < widest:
        return f"broader than /{widest}"
    if not settings.accept_private and any(
        network.family == private.family
        and network.first <= private.last
        and network.last >= private.first
        for private in _PRIVATE
    ):
        return "private or reserved"
    return ""
