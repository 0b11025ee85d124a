"""Who is never dropped, and who says so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from apiban.address import Network
from apiban.settings.model import Settings
from apiban.store import Allowed, Store

__all__ = ["Exemption", "Kind", "all_exemptions", "exemptions"]

Kind = Literal["settings", "upstream", "peer", "own", "allow list"]


@dataclass(frozen=True, slots=True)
class Exemption:
    """A network that is saved from every ban.

    ``kind`` is who says so: ``allow.networks``, ``edge.upstreams``, ``node.peers``, an interface of
    this host, or the store's allow list, of which ``allowed`` is the entry.
    """

    network: Network
    kind: Kind
    allowed: Allowed | None = None

    def __str__(self) -> str:
        allowed = self.allowed
        if allowed is None:
            return {
                "settings": "allow.networks of the settings",
                "upstream": "an upstream of the edge",
                "peer": "a peer of this node",
                "own": "an address of this host",
                "allow list": "the allow list",
            }[self.kind]
        reason = f": {allowed.reason}" if allowed.reason else ""
        return f"the allow list ({allowed.source}{reason})"


def exemptions(
    network: Network, *, settings: Settings, own: Sequence[Network], store: Store, now: float
) -> list[Exemption]:
    """Give the exemptions in force that have an address in common with a network.

    Raises:
        StoreError: the store cannot be read.

    """
    found = _standing(settings, own) + _in_force(store.allowing(network), now)
    return [one for one in found if one.network.overlaps(network)]


def all_exemptions(
    *, settings: Settings, own: Sequence[Network], store: Store, now: float
) -> list[Exemption]:
    """Give every exemption in force.

    Raises:
        StoreError: the store cannot be read.

    """
    return _standing(settings, own) + _in_force(store.allow_list(), now)


def _standing(settings: Settings, own: Sequence[Network]) -> list[Exemption]:
    """Give those that the store has no say in."""
    return [
        *(Exemption(one, "own") for one in own),
        *(Exemption(one.address, "upstream") for one in settings.edge.upstreams),
        *(Exemption(one, "peer") for one in settings.node.peers),
        *(Exemption(one, "settings") for one in settings.allow.networks),
    ]


def _in_force(allowed: Iterable[Allowed], now: float) -> list[Exemption]:
    return [
        Exemption(one.network, "allow list", one)
        for one in allowed
        if one.expires is None or now < one.expires
    ]
