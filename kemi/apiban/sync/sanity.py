"""What a feed may list: a page is not trusted just because it came over TLS."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from apiban.address import Network
from apiban.private import is_private
from apiban.settings.model import FeedSettings

__all__ = ["Refusal", "sift"]


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
    if not settings.accept_private and is_private(network):
        return "private or reserved"
    return ""
