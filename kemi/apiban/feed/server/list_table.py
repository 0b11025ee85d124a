"""The table of what is active, as ``Claims`` changes it: IDs, new rows, ends.

Everything happens inside a transaction of ``Database.write()`` that the caller has begun.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from apiban.address import parse_network
from apiban.feed.server import numbers
from apiban.feed.server.database.connect import upsert
from apiban.feed.server.database.schema import counter, listing, past
from apiban.feed.server.listings import kind_of, subscriber_of

__all__ = ["Key", "ListTable", "Row", "Times"]

Key = tuple[str, str]  # address and data set


@dataclass(frozen=True, slots=True)
class Row:
    """A listing as it stands: when its ID was given, and when it ends."""

    listed: float
    expires: float


@dataclass(frozen=True, slots=True)
class Times:
    """What the claims on an address add up to."""

    last_seen: float
    expires: float


class ListTable:
    """Writes the listings of one feed; ``now`` gives seconds since 1970."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._size: int | None = None

    def rows(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, Row]:
        """Give those of the keys that are in the table, also when their time is over."""
        rows = connection.execute(
            select(listing.c.address, listing.c.dataset, listing.c.listed, listing.c.expires).where(
                listing.c.address.in_([address for address, _ in keys])
            )
        )
        asked = set(keys)
        found = {(row.address, row.dataset): Row(row.listed, row.expires) for row in rows}
        return {key: row for key, row in found.items() if key in asked}

    def known(self, connection: Connection, keys: Sequence[Key]) -> set[Key]:
        """Give those that were listed before; what has just ended counts as well."""
        return self.ended_since(connection, keys, 0.0) | self.rows(connection, keys).keys()

    def ended_since(self, connection: Connection, keys: Sequence[Key], since: float) -> set[Key]:
        """Give those whose listing ended after a time."""
        rows = connection.execute(
            select(past.c.address, past.c.dataset).where(
                past.c.address.in_([address for address, _ in keys]), past.c.ended > since
            )
        )
        return {(row.address, row.dataset) for row in rows} & set(keys)

    def size(self, connection: Connection) -> int:
        """Give how long the list is, counted after ``recount`` alone: for a bound, not a figure."""
        if self._size is None:
            self._size = int(
                connection.execute(select(func.count()).select_from(listing)).scalar_one()
            )
        return self._size

    def next_ids(self, connection: Connection, count: int) -> range:
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

    def crowd(self, connection: Connection, subscribers: Sequence[str]) -> dict[str, int]:
        """Give how many hosts of these networks of 64 bits are listed."""
        if not subscribers:
            return {}
        query = (
            select(listing.c.subscriber, func.count())
            .where(listing.c.subscriber.in_(subscribers))
            .group_by(listing.c.subscriber)
        )
        return {row[0]: row[1] for row in connection.execute(query)}

    def recount(self) -> None:
        """Count the list at the next question: other processes write too."""
        self._size = None

    def place(
        self, connection: Connection, times: Mapping[Key, Times], ids: Mapping[Key, int]
    ) -> None:
        """Write listings: those of ``ids`` get it, there already or not; the others live on."""
        now = self._now()
        there = self.rows(connection, list(times))
        new: list[dict[str, Any]] = []
        moved: list[dict[str, Any]] = []
        for key, number in ids.items():
            seen = {"last_seen": times[key].last_seen, "expires": times[key].expires}
            if key in there:
                moved.append({**_named(key), **seen, "id": number, "listed": now})
            else:
                network = parse_network(key[0])
                subscriber = subscriber_of(network)
                row = {
                    "address": key[0],
                    "dataset": key[1],
                    "kind": kind_of(network),
                    "subscriber": None if subscriber is None else str(subscriber),
                }
                new.append({**row, **seen, "id": number, "since": now, "listed": now})
        if new:
            connection.execute(insert(listing), new)
            self._size = self.size(connection) + len(new)
        if moved:
            connection.execute(_update("id", "listed", "last_seen", "expires"), moved)
        self.renew(connection, {key: one for key, one in times.items() if key not in ids})

    def move(self, connection: Connection, keys: Sequence[Key]) -> None:
        """Give listings a new ID each."""
        if keys:
            ids = self.next_ids(connection, len(keys))
            rows = zip(keys, ids, strict=True)
            now = self._now()
            connection.execute(
                _update("id", "listed"),
                [{**_named(key), "id": number, "listed": now} for key, number in rows],
            )

    def renew(self, connection: Connection, times: Mapping[Key, Times]) -> None:
        """Set when listings were last seen, and when they end."""
        if times:
            connection.execute(
                _update("last_seen", "expires"),
                [
                    {**_named(key), "last_seen": one.last_seen, "expires": one.expires}
                    for key, one in times.items()
                ],
            )

    def end(self, connection: Connection, keys: Sequence[Key]) -> int:
        """Take listings off; give how many."""
        if not keys:
            return 0
        now = self._now()
        entry = upsert(connection, past)
        connection.execute(
            entry.on_conflict_do_update(
                index_elements=["address", "dataset"], set_={"ended": entry.excluded.ended}
            ),
            [{"address": address, "dataset": dataset, "ended": now} for address, dataset in keys],
        )
        connection.execute(
            delete(listing).where(
                listing.c.address == bindparam("at_address"),
                listing.c.dataset == bindparam("at_dataset"),
            ),
            [_named(key) for key in keys],
        )
        numbers.add(connection, now, {("listed", "ended"): len(keys)})
        if self._size is not None:
            self._size -= len(keys)
        return len(keys)


def _named(key: Key) -> dict[str, str]:
    return {"at_address": key[0], "at_dataset": key[1]}


def _update(*names: str) -> Any:
    return (
        update(listing)
        .where(
            listing.c.address == bindparam("at_address"),
            listing.c.dataset == bindparam("at_dataset"),
        )
        .values({name: bindparam(name) for name in names})
    )
