"""Who wants what listed, and the list that follows from it.

A *claim* says that a source (``honeypot``, ``mirror``, ``manual`` or ``file:NAME``) wants an
address listed until a time. A *listing* stands while a claim on it does, and has an ID: a number
that grows with each listing and is never used again. An address gets a new ID when it is listed
anew, and when it was seen again while its last ID is older than ``relist_after``: clients count
the days from the last time that an address was listed to them.

IDs are given and committed by one writer at a time (``Database.write``), so that a client that
pages from any ID misses nothing; and an address gets at most one in ``relist_after``, so that
paging ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, bindparam, case, delete, func, select

from apiban.address import Network, parse_network
from apiban.feed.server import numbers
from apiban.feed.server.database.connect import upsert
from apiban.feed.server.database.schema import claim, listing, past, suppression
from apiban.feed.server.list_table import Key, ListTable, Row, Times
from apiban.feed.server.listings import covering, subscriber_of
from apiban.feed.server.never import NeverList
from apiban.feed.server.ranges import Ranges
from apiban.feed.server.settings import CurationSettings
from apiban.private import is_private

__all__ = ["FILE", "FULL", "HONEYPOT", "MANUAL", "MIRROR", "Claims", "Outcome", "Wanted"]

FULL: Final = "the list is full"
HONEYPOT: Final = "honeypot"
MIRROR: Final = "mirror"
MANUAL: Final = "manual"
FILE: Final = "file:"

# How many addresses a statement names at most: SQLite's variables are limited.
_STEP: Final = 500
# More of one IPv6 network of 64 bits are listed as that network.
_HOSTS_OF_A_SUBSCRIBER: Final = 16
_REMEMBER: Final = 90 * 86400.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be listed; ``seen`` and ``expires`` are in seconds since 1970."""

    network: Network
    seen: float
    expires: float
    reason: str = ""
    dataset: str = "sip"


@dataclass(slots=True)
class Outcome:
    """What came of it: counts, and the addresses that were refused with the reason."""

    new: int = 0
    reactivated: int = 0
    relisted: int = 0
    renewed: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def listed(self) -> int:
        """How many new IDs were given."""
        return self.new + self.reactivated + self.relisted


class Claims:
    """Changes the list, inside a transaction of ``Database.write()`` that the caller has begun."""

    def __init__(
        self, settings: CurationSettings, never: NeverList, now: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._never = never
        self._now = now
        self._table = ListTable(now)

    def make(
        self,
        connection: Connection,
        source: str,
        wanted: Iterable[Wanted],
        *,
        overrule: bool = False,
    ) -> Outcome:
        """Claim addresses for a source; list, renew or refuse each.

        ``overrule`` is an operator's word: it sets the time exactly, and lifts a suppression.
        """
        now = self._now()
        outcome = Outcome()
        good: dict[Key, Wanted] = {}
        kept_off = Ranges(()) if overrule else self._kept_off(connection)
        for one in wanted:
            reason = self.refusal(one.network)
            if one.expires <= now:
                reason = "its time is over"
            elif kept_off.overlaps(one.network):
                reason = "delisted by the operator"
            if reason:
                outcome.refused[str(one.network)] = reason
                continue
            key = (str(one.network), one.dataset)
            if key not in good or good[key].seen < one.seen:
                good[key] = one
        for address, _ in good:
            outcome.refused.pop(address, None)  # an older one of the same was refused
        for keys in _steps(list(good)):
            if overrule:
                addresses = [address for address, _ in keys]
                connection.execute(delete(suppression).where(suppression.c.address.in_(addresses)))
            self._make(
                connection, source, [(key, good[key]) for key in keys], outcome, exact=overrule
            )
        numbers.add(
            connection,
            now,
            {("listed", "new"): outcome.new, ("listed", "reactivated"): outcome.reactivated},
        )
        return outcome

    def of(self, connection: Connection, network: Network) -> list[dict[str, Any]]:
        """Give the claims on an address, as rows of the table."""
        query = select(claim).where(claim.c.address == str(network)).order_by(claim.c.source)
        return [dict(row) for row in connection.execute(query).mappings()]

    def had(self, connection: Connection, keys: Sequence[Key]) -> set[Key]:
        """Give those that are listed, or were until not long ago, whoever claimed them."""
        since = self._now() - 2 * self._settings.active_for
        return self._there(connection, keys) | {
            key for step in _steps(keys) for key in self._table.ended_since(connection, step, since)
        }

    def listed_lately(self, connection: Connection, keys: Sequence[Key]) -> set[Key]:
        """Give those whose ID is younger than half of the time that an address is active."""
        since = self._now() - self._settings.active_for / 2
        return {
            key
            for step in _steps(keys)
            for key, row in self._table.rows(connection, step).items()
            if row.listed > since
        }

    def kept_off(self, connection: Connection, network: Network) -> list[dict[str, Any]]:
        """Give what an operator delisted that holds a network, as rows of the table."""
        query = select(suppression).where(
            suppression.c.address.in_(covering(network)), suppression.c.until > self._now()
        )
        return [dict(row) for row in connection.execute(query).mappings()]

    def refusal(self, network: Network) -> str:
        """Give why a network is never listed here; an empty text when it may be."""
        if self._never.overlaps(network):
            return "on the never-list"
        if not self._settings.accept_private and is_private(network):
            return "private or reserved"
        widest = self._settings.widest_ipv4 if network.family == 4 else self._settings.widest_ipv6
        if network.prefix < widest:
            return f"broader than /{widest}"
        return ""

    def gathered(
        self, connection: Connection, networks: Iterable[Network]
    ) -> dict[Network, Network]:
        """Give what to list instead of hosts whose network of 64 bits has many listed already.

        Who has one IPv6 address has 2**64 of them: one row each would fill any list.
        """
        hosts: dict[Network, dict[Network, None]] = {}
        for one in networks:
            subscriber = subscriber_of(one)
            if subscriber is not None:
                hosts.setdefault(subscriber, {})[one] = None
        instead: dict[Network, Network] = {}
        for step in _steps(list(hosts)):
            crowd = self._table.crowd(connection, [str(one) for one in step])
            for subscriber in step:
                keys = [(str(host), "sip") for host in hosts[subscriber]]
                there = self._there(connection, keys)
                new = [one for one in hosts[subscriber] if (str(one), "sip") not in there]
                room = max(_HOSTS_OF_A_SUBSCRIBER - crowd.get(str(subscriber), 0), 0)
                instead |= dict.fromkeys(new[room:], subscriber)
        return instead

    def withdraw(self, connection: Connection, source: str, keys: Iterable[Key]) -> int:
        """Take back a source's claims; what nobody else claims is no longer listed."""
        return sum(
            self._settle(connection, self._remove(connection, step, source))
            for step in _steps(list(keys))
        )

    def delist(
        self, connection: Connection, networks: Iterable[Network], *, until: float, reason: str
    ) -> int:
        """Take what touches these networks off the list, and keep it off until a time."""
        now = self._now()
        networks = list(networks)
        entry = upsert(connection, suppression)
        values = {name: entry.excluded[name] for name in ("until", "reason", "at")}
        rows = [
            {"address": address, "until": until, "reason": reason, "at": now}
            for address in sorted({str(one) for one in networks})
        ]
        connection.execute(
            entry.on_conflict_do_update(index_elements=["address"], set_=values), rows
        )
        texts = {text for one in networks for text in covering(one)}
        keys = self._claimed(connection, sorted(texts))
        if not all(one.is_host for one in networks):
            ranges = Ranges(networks)
            keys |= self._listed(connection, ranges.overlaps)
        return self.drop(connection, sorted(keys))

    def expire(self, connection: Connection, *, limit: int) -> int:
        """Remove claims whose time is over, at most ``limit``, and what falls with them."""
        query = (
            select(claim.c.address, claim.c.dataset, claim.c.source)
            .where(claim.c.expires <= self._now())
            .order_by(claim.c.expires)
            .limit(limit)
        )
        rows = connection.execute(query).all()
        self._table.recount()
        by_source: dict[str, list[Key]] = {}
        for row in rows:
            by_source.setdefault(row.source, []).append((row.address, row.dataset))
        for source, keys in sorted(by_source.items()):
            self.withdraw(connection, source, keys)
        connection.execute(delete(past).where(past.c.ended < self._now() - _REMEMBER))
        connection.execute(delete(suppression).where(suppression.c.until <= self._now()))
        return len(rows)

    def relist(self, connection: Connection, *, limit: int) -> int:
        """Give a new ID to what was seen since its last one, when that is old enough."""
        now = self._now()
        due = connection.execute(
            select(listing.c.address, listing.c.dataset)
            .where(
                listing.c.listed <= now - self._settings.relist_after,
                listing.c.last_seen > listing.c.listed,
                listing.c.expires > now,
            )
            .limit(limit)
        )
        keys = [(row.address, row.dataset) for row in due]
        self._table.move(connection, keys)
        return len(keys)

    def never_listed(self, connection: Connection) -> list[Key]:
        """Give what is listed and the never-list has come to hold."""
        return sorted(self._listed(connection, self._never.overlaps))

    # Inside ------------------------------------------------------------------------------------

    def _make(
        self,
        connection: Connection,
        source: str,
        wanted: list[tuple[Key, Wanted]],
        outcome: Outcome,
        *,
        exact: bool,
    ) -> None:
        there = self._table.rows(connection, [key for key, _ in wanted])
        wanted = self._with_room(connection, wanted, there, outcome)
        if not wanted:
            return
        self._write_claims(connection, source, wanted, exact=exact)
        now = self._now()
        times = self._times(connection, [key for key, _ in wanted])
        fresh, again = [], []
        for key, _ in wanted:
            row = there.get(key)
            if row is None or row.expires <= now:
                fresh.append(key)
            elif self._is_due(row, times[key].last_seen, now):
                again.append(key)
        back = len(self._table.known(connection, fresh))
        ids = self._table.next_ids(connection, len(fresh) + len(again))
        self._table.place(connection, times, dict(zip(fresh + again, ids, strict=True)))
        outcome.new += len(fresh) - back
        outcome.reactivated += back
        outcome.relisted += len(again)
        outcome.renewed += len(wanted) - len(fresh) - len(again)

    def _is_due(self, row: Row, last_seen: float, now: float) -> bool:
        """Tell whether what is active gets a new ID, since clients count from the last one."""
        return row.listed + self._settings.relist_after <= now and last_seen > row.listed

    def _with_room(
        self,
        connection: Connection,
        wanted: list[tuple[Key, Wanted]],
        there: dict[Key, Row],
        outcome: Outcome,
    ) -> list[tuple[Key, Wanted]]:
        """Refuse what the list has no room for."""
        room = self._settings.max_listed - self._table.size(connection)
        taken = []
        for key, one in wanted:
            if key not in there:
                if room <= 0:
                    outcome.refused[key[0]] = FULL
                    continue
                room -= 1
            taken.append((key, one))
        return taken

    def _write_claims(
        self,
        connection: Connection,
        source: str,
        wanted: Sequence[tuple[Key, Wanted]],
        *,
        exact: bool,
    ) -> None:
        entry = upsert(connection, claim)
        given = entry.excluded

        def later(name: str) -> Any:
            if exact:
                return given[name]
            return case((claim.c[name] < given[name], given[name]), else_=claim.c[name])

        values = {
            "reason": given.reason,
            "last_seen": later("last_seen"),
            "expires": later("expires"),
        }
        connection.execute(
            entry.on_conflict_do_update(
                index_elements=["address", "dataset", "source"], set_=values
            ),
            [
                {
                    "address": address,
                    "dataset": dataset,
                    "source": source,
                    "reason": one.reason[:200],
                    "first_seen": one.seen,
                    "last_seen": one.seen,
                    "expires": one.expires,
                }
                for (address, dataset), one in wanted
            ],
        )

    def _settle(self, connection: Connection, keys: Sequence[Key]) -> int:
        """Let listings follow from what is still claimed; give how many ended."""
        if not keys:
            return 0
        times = self._times(connection, keys)
        self._table.renew(connection, times)
        return self._table.end(
            connection, [key for key in self._table.rows(connection, keys) if key not in times]
        )

    def _listed(self, connection: Connection, matches: Callable[[Network], bool]) -> set[Key]:
        """Look through the whole list: for what an operator does, which is seldom."""
        rows = connection.execute(select(listing.c.address, listing.c.dataset)).yield_per(5000)
        return {(row.address, row.dataset) for row in rows if matches(parse_network(row.address))}

    def _claimed(self, connection: Connection, addresses: Sequence[str]) -> set[Key]:
        keys: set[Key] = set()
        for step in _steps(addresses):
            query = select(claim.c.address, claim.c.dataset).where(claim.c.address.in_(step))
            keys |= {(row.address, row.dataset) for row in connection.execute(query)}
        return keys

    def drop(self, connection: Connection, keys: Sequence[Key]) -> int:
        """Remove every claim on these, and so the listings."""
        gone = 0
        for step in _steps(keys):
            addresses = [address for address, _ in step]
            connection.execute(delete(claim).where(claim.c.address.in_(addresses)))
            gone += self._settle(connection, step)
        return gone

    def _remove(self, connection: Connection, keys: Sequence[Key], source: str) -> Sequence[Key]:
        connection.execute(
            delete(claim).where(
                claim.c.address == bindparam("at_address"),
                claim.c.dataset == bindparam("at_dataset"),
                claim.c.source == source,
            ),
            [{"at_address": address, "at_dataset": dataset} for address, dataset in keys],
        )
        return keys

    def _there(self, connection: Connection, keys: Sequence[Key]) -> set[Key]:
        return {key for step in _steps(keys) for key in self._table.rows(connection, step)}

    def _times(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, Times]:
        """Give when each was last seen by anybody, and the latest end of its claims."""
        rows = connection.execute(
            select(
                claim.c.address,
                claim.c.dataset,
                func.max(claim.c.last_seen),
                func.max(claim.c.expires),
            )
            .where(claim.c.address.in_([address for address, _ in keys]))
            .group_by(claim.c.address, claim.c.dataset)
        )
        asked = set(keys)
        found = {(row[0], row[1]): Times(row[2], row[3]) for row in rows}
        return {key: times for key, times in found.items() if key in asked}

    def _kept_off(self, connection: Connection) -> Ranges:
        """Give what operators delisted, and nobody lists for now."""
        query = select(suppression.c.address).where(suppression.c.until > self._now())
        return Ranges(parse_network(row.address) for row in connection.execute(query))


def _steps(keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for at in range(0, len(keys), _STEP):
        yield keys[at : at + _STEP]
