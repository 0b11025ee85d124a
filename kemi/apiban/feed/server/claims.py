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

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, bindparam, case, delete, func, insert, select, update

from apiban.address import Network, parse_network
from apiban.feed.server import numbers
from apiban.feed.server.database.connect import upsert
from apiban.feed.server.database.schema import claim, counter, listing, past, suppression
from apiban.feed.server.listings import kind_of
from apiban.feed.server.never import NeverList
from apiban.feed.server.settings import CurationSettings
from apiban.private import is_private

__all__ = ["FILE", "HONEYPOT", "MANUAL", "MIRROR", "Claims", "Outcome", "Wanted"]

HONEYPOT: Final = "honeypot"
MIRROR: Final = "mirror"
MANUAL: Final = "manual"
FILE: Final = "file:"

# How many addresses a statement names at most: SQLite's variables are limited.
_STEP: Final = 500
_REMEMBER: Final = 90 * 86400.0

Key = tuple[str, str]  # address and data set


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


@dataclass(frozen=True, slots=True)
class _Row:
    """A listing as it stands."""

    listed: float
    expires: float


class Claims:
    """Changes the list, inside a transaction of ``Database.write()`` that the caller has begun."""

    def __init__(
        self, settings: CurationSettings, never: NeverList, now: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._never = never
        self._now = now
        self._size: int | None = None

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
        for one in wanted:
            reason = self.refusal(one.network)
            if one.expires <= now:
                reason = "its time is over"
            if reason:
                outcome.refused[str(one.network)] = reason
                continue
            key = (str(one.network), one.dataset)
            if key not in good or good[key].seen < one.seen:
                good[key] = one
        for keys in _steps(list(good)):
            addresses = [address for address, _ in keys]
            if overrule:
                connection.execute(delete(suppression).where(suppression.c.address.in_(addresses)))
            for address in self._suppressed(connection, addresses, now):
                outcome.refused[address] = "delisted by the operator"
            self._make(
                connection,
                source,
                [(key, good[key]) for key in keys if key[0] not in outcome.refused],
                outcome,
                exact=overrule,
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

    def refusal(self, network: Network) -> str:
        """Give why a network is never listed here; an empty text when it may be."""
        if self._never.overlaps(network):
            return "on the never-list"
        if not self._settings.accept_private and is_private(network):
            return "private or reserved"
        return ""

    def withdraw(self, connection: Connection, source: str, keys: Iterable[Key]) -> int:
        """Take back a source's claims; what nobody else claims is no longer listed."""
        return sum(
            self._settle(connection, self._remove(connection, step, source))
            for step in _steps(list(keys))
        )

    def delist(
        self, connection: Connection, networks: Iterable[Network], *, until: float, reason: str
    ) -> int:
        """Take addresses off the list, whoever claims them, and keep them off until a time."""
        gone = 0
        now = self._now()
        for step in _steps(sorted({str(one) for one in networks})):
            entry = upsert(connection, suppression)
            values = {name: entry.excluded[name] for name in ("until", "reason", "at")}
            connection.execute(
                entry.on_conflict_do_update(index_elements=["address"], set_=values),
                [{"address": a, "until": until, "reason": reason, "at": now} for a in step],
            )
            found = connection.execute(
                select(claim.c.address, claim.c.dataset).where(claim.c.address.in_(step))
            )
            keys = [(row.address, row.dataset) for row in found]
            connection.execute(delete(claim).where(claim.c.address.in_(step)))
            gone += self._settle(connection, keys)
        return gone

    def expire(self, connection: Connection, *, limit: int) -> int:
        """Remove claims whose time is over, at most ``limit``, and what falls with them."""
        query = (
            select(claim.c.address, claim.c.dataset, claim.c.source)
            .where(claim.c.expires <= self._now())
            .order_by(claim.c.expires)
            .limit(limit)
        )
        rows = connection.execute(query).all()
        self._size = None  # others may write too: count again
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
        ).all()
        ids = self._next_ids(connection, len(due))
        if due:
            connection.execute(
                _update("id", "listed"),
                [
                    {"at_address": row.address, "at_dataset": row.dataset, "id": id_, "listed": now}
                    for row, id_ in zip(due, ids, strict=True)
                ],
            )
        return len(due)

    def drop_never_listed(self, connection: Connection) -> int:
        """Take off the list what the never-list has come to hold."""
        rows = connection.execute(select(listing.c.address, listing.c.dataset)).yield_per(5000)
        wrong: list[Key] = [
            (row.address, row.dataset)
            for row in rows
            if self._never.overlaps(parse_network(row.address))
        ]
        for step in _steps(wrong):
            addresses = [address for address, _ in step]
            connection.execute(delete(claim).where(claim.c.address.in_(addresses)))
            self._settle(connection, step)
        return len(wrong)

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
        there = self._rows(connection, [key for key, _ in wanted])
        wanted = self._with_room(connection, wanted, there, outcome)
        if not wanted:
            return
        self._write_claims(connection, source, wanted, exact=exact)
        now = self._now()
        sums = self._sums(connection, [key for key, _ in wanted])
        fresh, again = [], []
        for key, _ in wanted:
            row = there.get(key)
            if row is None or row.expires <= now:
                fresh.append(key)
            elif self._is_due(row, sums[key].last_seen, now):
                again.append(key)
        back = len(self._known(connection, fresh))
        ids = self._next_ids(connection, len(fresh) + len(again))
        self._place(connection, wanted, there, sums, dict(zip(fresh + again, ids, strict=True)))
        outcome.new += len(fresh) - back
        outcome.reactivated += back
        outcome.relisted += len(again)
        outcome.renewed += len(wanted) - len(fresh) - len(again)

    def _is_due(self, row: _Row, last_seen: float, now: float) -> bool:
        """Tell whether what is active gets a new ID, since clients count from the last one."""
        return row.listed + self._settings.relist_after <= now and last_seen > row.listed

    def _with_room(
        self,
        connection: Connection,
        wanted: list[tuple[Key, Wanted]],
        there: dict[Key, _Row],
        outcome: Outcome,
    ) -> list[tuple[Key, Wanted]]:
        """Refuse what the list has no room for."""
        room = self._settings.max_listed - self._known_size(connection)
        taken = []
        for key, one in wanted:
            if key not in there:
                if room <= 0:
                    outcome.refused[key[0]] = "the list is full"
                    continue
                room -= 1
            taken.append((key, one))
        return taken

    def _place(
        self,
        connection: Connection,
        wanted: list[tuple[Key, Wanted]],
        there: dict[Key, _Row],
        sums: dict[Key, Any],
        ids: dict[Key, int],
    ) -> None:
        """Write the listings: those of ``ids`` get the new one, the others live on."""
        now = self._now()
        new, moved, renewed = [], [], []
        for (address, dataset), one in wanted:
            key = (address, dataset)
            times = {"last_seen": sums[key].last_seen, "expires": sums[key].expires}
            named = {"at_address": address, "at_dataset": dataset}
            if key not in there:
                row = {"address": address, "dataset": dataset, "kind": kind_of(one.network)}
                new.append({**row, **times, "id": ids[key], "since": now, "listed": now})
            elif key in ids:
                moved.append({**named, **times, "id": ids[key], "listed": now})
            else:
                renewed.append({**named, **times})
        if new:
            connection.execute(insert(listing), new)
            self._size = self._known_size(connection) + len(new)
        if moved:
            connection.execute(_update("id", "listed", "last_seen", "expires"), moved)
        if renewed:
            connection.execute(_update("last_seen", "expires"), renewed)

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
        sums = self._sums(connection, keys)
        kept = [
            {
                "at_address": address,
                "at_dataset": dataset,
                "last_seen": sums[address, dataset].last_seen,
                "expires": sums[address, dataset].expires,
            }
            for address, dataset in keys
            if (address, dataset) in sums
        ]
        if kept:
            connection.execute(_update("last_seen", "expires"), kept)
        ended = [key for key in self._rows(connection, keys) if key not in sums]
        if ended:
            now = self._now()
            entry = upsert(connection, past)
            connection.execute(
                entry.on_conflict_do_update(
                    index_elements=["address", "dataset"], set_={"ended": entry.excluded.ended}
                ),
                [{"address": address, "dataset": set_, "ended": now} for address, set_ in ended],
            )
            connection.execute(
                delete(listing).where(
                    listing.c.address == bindparam("at_address"),
                    listing.c.dataset == bindparam("at_dataset"),
                ),
                [{"at_address": address, "at_dataset": dataset} for address, dataset in ended],
            )
            numbers.add(connection, now, Counter({("listed", "ended"): len(ended)}))
            if self._size is not None:
                self._size -= len(ended)
        return len(ended)

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

    def _rows(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, _Row]:
        rows = connection.execute(
            select(listing.c.address, listing.c.dataset, listing.c.listed, listing.c.expires).where(
                listing.c.address.in_([address for address, _ in keys])
            )
        )
        asked = set(keys)
        found = {(row.address, row.dataset): _Row(row.listed, row.expires) for row in rows}
        return {key: row for key, row in found.items() if key in asked}

    def _sums(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, Any]:
        """Give when each was last seen by anybody, and the latest end of its claims."""
        rows = connection.execute(
            select(
                claim.c.address,
                claim.c.dataset,
                func.max(claim.c.last_seen).label("last_seen"),
                func.max(claim.c.expires).label("expires"),
            )
            .where(claim.c.address.in_([address for address, _ in keys]))
            .group_by(claim.c.address, claim.c.dataset)
        )
        return {(row.address, row.dataset): row for row in rows}

    def _known(self, connection: Connection, keys: Sequence[Key]) -> set[Key]:
        """Give those that were listed before; what has just ended counts as well."""
        rows = connection.execute(
            select(past.c.address, past.c.dataset).where(
                past.c.address.in_([address for address, _ in keys])
            )
        )
        known = {(row.address, row.dataset) for row in rows} & set(keys)
        return known | self._rows(connection, keys).keys()

    def _suppressed(
        self, connection: Connection, addresses: Sequence[str], now: float
    ) -> list[str]:
        query = select(suppression.c.address).where(
            suppression.c.address.in_(addresses), suppression.c.until > now
        )
        return [row.address for row in connection.execute(query)]

    def _known_size(self, connection: Connection) -> int:
        """Give how long the list is, counted now and then: it is a bound, not a figure."""
        if self._size is None:
            self._size = int(
                connection.execute(select(func.count()).select_from(listing)).scalar_one()
            )
        return self._size

    def _next_ids(self, connection: Connection, count: int) -> range:
        """Take the next IDs: from the clock in microseconds, and above every earlier one.

        So the IDs go on above what clients hold even when the database comes from a backup.
        """
        if count == 0:
            return range(0)
        last = connection.execute(
            select(counter.c.value).where(counter.c.name == "listing")
        ).scalar_one_or_none()
        first = max((last or 0) + 1, int(self._now() * 1_000_000))
        row = {"name": "listing", "value": first + count - 1}
        entry = upsert(connection, counter)
        connection.execute(
            entry.on_conflict_do_update(
                index_elements=["name"], set_={"value": entry.excluded.value}
            ),
            row,
        )
        return range(first, first + count)


def _update(*names: str) -> Any:
    return (
        update(listing)
        .where(
            listing.c.address == bindparam("at_address"),
            listing.c.dataset == bindparam("at_dataset"),
        )
        .values({name: bindparam(name) for name in names})
    )


def _steps(keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for at in range(0, len(keys), _STEP):
        yield keys[at : at + _STEP]
