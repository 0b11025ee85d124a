"""What an operator may ban and unban, and what that changes in the store.

Each ``plan_...`` only looks; the plan's ``carry_out`` writes. Within ``Store.together`` both are
one transaction, so that nobody allows what is just being banned.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from apiban.address import Network, parse_network
from apiban.settings.model import FeedSettings
from apiban.snapshot.format import FOREVER
from apiban.store import DETECTOR, LOCAL, UNBAN, Allowed, Entry, Store
from apiban.verdict.exempt import Exemption
from apiban.verdict.saved import Saved
from apiban.verdict.wanted import Refused, Wanted, by_reason

__all__ = ["BanPlan", "UnbanPlan", "ban_end", "plan_ban", "plan_unban"]

_LOOPBACK: Final = (parse_network("127.0.0.0/8"), parse_network("::1"))
# The entries that are the operator's to remove: the feed would list its own again.
_OURS: Final = (LOCAL, DETECTOR)
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class BanPlan:
    """``lift``: what an earlier unban allows; ``keep``: what stays allowed of that.

    ``kept`` are the operator's own bans that last longer, and stay as they are.
    """

    ban: tuple[Wanted, ...]
    refused: tuple[Refused, ...]
    lift: tuple[Allowed, ...]
    keep: tuple[Allowed, ...]
    kept: tuple[Entry, ...] = ()

    def lasting(self, store: Store, *, expires: float) -> BanPlan:
        """Give the plan that shortens no ban of the operator's."""
        kept = [
            entry
            for one in self.ban
            for entry in store.find(one.network)
            if entry.source == LOCAL and entry.expires > expires
        ]
        left = {entry.network for entry in kept}
        ban = tuple(one for one in self.ban if one.network not in left)
        return replace(self, ban=ban, kept=tuple(dict.fromkeys(kept)))

    def carry_out(self, store: Store, *, expires: float, now: float) -> int:
        """Ban until ``expires``; give how many the operator had not banned before."""
        with store.together():
            store.unallow([one.network for one in self.lift], now=now, source=UNBAN)
            for one in self.keep:
                store.allow(
                    [one.network],
                    reason=one.reason,
                    now=one.added,
                    expires=one.expires,
                    source=UNBAN,
                )
            return sum(
                store.ban(networks, source=LOCAL, reason=reason, expires=expires, now=now)
                for reason, networks in by_reason(self.ban)
            )


@dataclass(frozen=True, slots=True)
class UnbanPlan:
    """``remove``: entries that go; ``allow``: what others still ban, each with the widest such ban.

    ``saved`` is exempt for good already, whatever bans it; ``free`` nothing bans. ``stay`` is what
    a program must not end.
    """

    remove: tuple[Entry, ...]
    allow: tuple[tuple[Wanted, Entry], ...]
    saved: tuple[tuple[Wanted, Exemption], ...]
    free: tuple[Wanted, ...]
    refused: tuple[Refused, ...]
    sources: tuple[str, ...] = _OURS
    stay: tuple[Entry, ...] = ()

    def automatic(self, reason: str) -> UnbanPlan:
        """Give a program's plan: it ends what ``ban`` set, for this reason if one is given."""
        remove = [one for one in self.remove if one.source == LOCAL and reason in ("", one.reason)]
        stay = [one for one in self.remove if one not in remove]
        stay += [entry for _, entry in self.allow]
        return replace(
            self,
            remove=tuple(remove),
            allow=(),
            sources=(LOCAL,),
            stay=tuple(dict.fromkeys(stay)),
        )

    def carry_out(self, store: Store, *, expires: float, now: float) -> None:
        """Remove, and allow until ``expires`` what another listing would bring back."""
        with store.together():
            store.unban([one.network for one in self.remove], sources=self.sources, now=now)
            for reason, networks in by_reason([wanted for wanted, _ in self.allow]):
                store.allow(networks, reason=reason, now=now, expires=expires, source=UNBAN)


def ban_end(now: float, seconds: float | None) -> float:
    """Give when a ban of so many seconds ends; None is for good."""
    return float(FOREVER) if seconds is None else min(now + seconds, float(FOREVER))


def plan_ban(  # noqa: PLR0913 - each is a fact, or one thing that an operator chooses
    wanted: Sequence[Wanted],
    *,
    exemptions: Iterable[Exemption],
    feed: FeedSettings,
    wide: bool = False,
    around: bool = False,
    automatic: bool = False,
) -> BanPlan:
    """Decide what may be banned.

    ``wide`` permits ranges wider than a feed may list, ``around`` those that hold exempt addresses,
    which stay exempt. What an earlier unban allows is no obstacle: the ban is the later word, but
    not that of a program (``automatic``).
    """
    unbans, others = _divide(exemptions)
    if automatic:
        unbans, others = [], [*others, *unbans]
    saved = Saved(others)
    ban: list[Wanted] = []
    refused: list[Refused] = []
    for one in wanted:
        why = (
            _too_wide(one.network, feed, wide=wide)
            or _loopback(one.network, feed)
            or _exempt(one.network, saved, around=around)
        )
        if why:
            refused.append(Refused(one, why))
        else:
            ban.append(one)
    lift, keep = _lifted(unbans, [one.network for one in ban])
    return BanPlan(tuple(ban), tuple(refused), lift, keep)


def plan_unban(  # noqa: PLR0913 - each is a fact of the node
    wanted: Sequence[Wanted],
    *,
    store: Store,
    exemptions: Iterable[Exemption],
    feed: FeedSettings,
    now: float,
    wide: bool = False,
) -> UnbanPlan:
    """Decide what ends the bans of these networks.

    Raises:
        StoreError: the store cannot be read.

    """
    _, others = _divide(exemptions)
    saved = Saved(one for one in others if one.allowed is None or one.allowed.expires is None)
    remove: dict[tuple[Network, str], Entry] = {}
    allow: list[tuple[Wanted, Entry]] = []
    exempt: list[tuple[Wanted, Exemption]] = []
    free: list[Wanted] = []
    refused: list[Refused] = []
    for one in wanted:
        why = _too_wide(one.network, feed, wide=wide)
        if why:
            refused.append(Refused(one, why))
            continue
        left: list[Entry] = []
        gone = 0
        for entry in store.touching(one.network):
            if entry.source in _OURS and _holds(one.network, entry.network):
                remove[entry.network, entry.source] = entry
                gone += 1
            elif now < entry.ends(feed.stale_max):
                left.append(entry)
        around = saved.around(one.network)
        if left and around:
            exempt.append((one, around[0]))
        elif left:
            allow.append((one, left[0]))
        elif not gone:
            free.append(one)
    return UnbanPlan(
        tuple(remove.values()), tuple(allow), tuple(exempt), tuple(free), tuple(refused)
    )


def _divide(exemptions: Iterable[Exemption]) -> tuple[list[Exemption], list[Exemption]]:
    """Part what an earlier unban allows from all else."""
    unbans: list[Exemption] = []
    others: list[Exemption] = []
    for one in exemptions:
        undone = one.allowed is not None and one.allowed.source == UNBAN
        (unbans if undone else others).append(one)
    return unbans, others


def _too_wide(network: Network, feed: FeedSettings, *, wide: bool) -> str:
    """Say why a network is too much to decide of at once; empty when it is not."""
    if not network.prefix:
        return "is everybody"
    name = f"feed.widest_ipv{network.family}"
    widest = feed.widest_ipv4 if network.family == 4 else feed.widest_ipv6
    if network.prefix < widest and not wide:
        return f"is wider than /{widest} ({name}); --wide permits it"
    return ""


def _loopback(network: Network, feed: FeedSettings) -> str:
    if not feed.accept_private and any(map(network.overlaps, _LOOPBACK)):
        return "is never banned: loopback is this host itself"
    return ""


def _exempt(network: Network, saved: Saved, *, around: bool) -> str:
    """Say why a network must not be banned; empty when it may be."""
    whole = saved.around(network)
    if whole:
        one = whole[-1]
        who = _who(one) if one.network == network else f"{one.network} is {_who(one)}"
        return f"is never banned: {who}"
    parts = saved.within(network)
    if not parts:
        return ""
    holes = [(one.network.first, one.network.last) for one in parts]
    if not any(_gaps(network, holes)):
        return f"is never banned: all of it is exempt: {_some(parts)}"
    return "" if around else f"holds {_some(parts)}; --around bans the rest of it"


def _some(parts: Sequence[Exemption]) -> str:
    named = ", ".join(f"{one.network} ({_who(one)})" for one in parts[:_NAMED])
    return f"{named} and {len(parts) - _NAMED:,} more" if len(parts) > _NAMED else named


def _who(one: Exemption) -> str:
    allowed = one.allowed
    if allowed is None:
        return f"in {one}" if one.kind == "settings" else str(one)
    return f"allowed by {allowed.source}" + (f": {allowed.reason}" if allowed.reason else "")


def _lifted(
    unbans: Sequence[Exemption], banned: Sequence[Network]
) -> tuple[tuple[Allowed, ...], tuple[Allowed, ...]]:
    """Give the entries that a ban takes away, and what stays allowed of those wider than it."""
    saved = Saved(unbans)
    holes: dict[Network, list[tuple[int, int]]] = {}
    for network in banned:
        for one in (*saved.around(network), *saved.within(network)):
            holes.setdefault(one.network, []).append((network.first, network.last))
    lift = [one.allowed for one in unbans if one.allowed and one.network in holes]
    keep = [
        Allowed(rest, UNBAN, one.reason, one.added, one.expires)
        for one in lift
        for rest in _rest(one.network, holes[one.network])
    ]
    return tuple(lift), tuple(keep)


def _rest(network: Network, holes: Sequence[tuple[int, int]]) -> Iterator[Network]:
    """Give a network without its holes, as CIDR blocks."""
    kind = ipaddress.IPv4Address if network.family == 4 else ipaddress.IPv6Address
    for first, last in _gaps(network, holes):
        for block in ipaddress.summarize_address_range(kind(first), kind(last)):
            start = int(block.network_address)
            yield Network(network.family, start, start + block.num_addresses - 1)


def _gaps(network: Network, holes: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Give what lies between the holes, as first and last address."""
    start = network.first
    for first, last in sorted(holes):
        if start < first:
            yield start, first - 1
        start = max(start, last + 1)
    if start <= network.last:
        yield start, network.last


def _holds(network: Network, other: Network) -> bool:
    return network.first <= other.first and other.last <= network.last
