"""What an operator may put onto the allow list, and take off it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from apiban.address import Network
from apiban.store import OPERATOR, UNBAN, Allowed, Store
from apiban.verdict.exempt import Exemption
from apiban.verdict.saved import Saved
from apiban.verdict.wanted import Refused, Wanted, by_reason

__all__ = ["AllowPlan", "RemovePlan", "plan_allow", "plan_remove"]


@dataclass(frozen=True, slots=True)
class AllowPlan:
    """What goes onto the operator's allow list."""

    allow: tuple[Wanted, ...]
    refused: tuple[Refused, ...]

    def carry_out(self, store: Store, *, expires: float | None, now: float) -> None:
        """Allow until ``expires``, or for good."""
        with store.together():
            for reason, networks in by_reason(self.allow):
                store.allow(networks, reason=reason, now=now, expires=expires, source=OPERATOR)


@dataclass(frozen=True, slots=True)
class RemovePlan:
    """What goes off the allow list; ``still``: what something else saves all the same."""

    remove: tuple[Allowed, ...]
    still: tuple[tuple[Wanted, Exemption], ...]
    refused: tuple[Refused, ...]

    def carry_out(self, store: Store, *, now: float) -> None:
        """Remove it."""
        with store.together():
            for source in (OPERATOR, UNBAN):
                gone = [one.network for one in self.remove if one.source == source]
                store.unallow(gone, now=now, source=source)


def plan_allow(wanted: Sequence[Wanted]) -> AllowPlan:
    """Decide what may be allowed: anything but everybody."""
    everybody = "is everybody: apiban mode off drops nobody"
    return AllowPlan(
        tuple(one for one in wanted if one.network.prefix),
        tuple(Refused(one, everybody) for one in wanted if not one.network.prefix),
    )


def plan_remove(wanted: Sequence[Wanted], *, exemptions: Iterable[Exemption]) -> RemovePlan:
    """Decide what the command line may take off the allow list: what it put there."""
    saved = Saved(exemptions)
    remove: list[Allowed] = []
    still: list[tuple[Wanted, Exemption]] = []
    refused: list[Refused] = []
    for one in wanted:
        ours = [
            exemption.allowed
            for exemption in saved.at(one.network)
            if exemption.allowed and exemption.allowed.source in (OPERATOR, UNBAN)
        ]
        others = [
            exemption
            for exemption in saved.around(one.network)
            if exemption.allowed is None or exemption.allowed not in ours
        ]
        remove += ours
        if ours:
            still += [(one, exemption) for exemption in others[:1]]
        elif others:
            refused.append(Refused(one, _how_to_change(one.network, others[-1])))
        else:
            refused.append(Refused(one, "is not on the allow list"))
    return RemovePlan(tuple(remove), tuple(still), tuple(refused))


def _how_to_change(network: Network, exemption: Exemption) -> str:
    """Say where an exemption is to be changed."""
    allowed, block = exemption.allowed, exemption.network
    if allowed is not None and allowed.source in (OPERATOR, UNBAN):
        return f"is not on the allow list itself: it is in {block}, which is"
    if allowed is not None:
        where = f"Kamailio's {allowed.source}: change it there, or allow.from_kamailio"
    elif exemption.kind == "own":
        where = "this host: it is an address of its own"
    else:
        name = {"upstream": "edge.upstreams", "peer": "node.peers"}.get(
            exemption.kind, "allow.networks"
        )
        where = f"{name} of the settings: change it there"
    whole = "" if block == network else f", as {block},"
    return f"is allowed{whole} by {where}"
