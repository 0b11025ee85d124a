"""The entries: who is banned, by which source, until when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from apiban.address import Family, Network
from apiban.store.feeds import Feeds
from apiban.store.file import blocks_around, key
from apiban.store.file import network as named
from apiban.store.records import Entry, FeedState

__all__ = ["Entries", "Filter"]

_SELECT = (
    "SELECT family, first, last, source, reason, first_listed, last_listed, expires FROM entry "
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries a listing shows; what is left out shows all.

    ``within`` shows what has an address in common with a network; ``reason`` is a part of the
    text.
    """

    source: str | None = None
    family: Family | None = None
    within: Network | None = None
    reason: str = ""
    expires_before: float | None = None


class Entries(Feeds):
    """The table of entries. Several sources may list the same network: each has its own."""

    # From a feed -------------------------------------------------------------------------------

    def record_page(
        self,
        source: str,
        networks: Sequence[Network],
        *,
        listed: float,
        expires: float,
        state: FeedState,
    ) -> int:
        """Store a page's networks and the feed's new state together; give how many were new.

        A network that is there already keeps its first listing, and its ban is counted anew. It
        counts as seen by the pass that ``state`` names.
        """
        rows = [(*key(network), source) for network in dict.fromkeys(networks)]
        with self._transaction():
            new = [row for row in rows if not self._has(row)]
            self._db.executemany(
                "INSERT INTO entry VALUES (?, ?, ?, ?, '', ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET last_listed = excluded.last_listed,"
                " expires = excluded.expires, seen_pass = excluded.seen_pass",
                [(*row, listed, listed, expires, state.pass_number) for row in rows],
            )
            for row in new:
                self._note(listed, "listed", source, str(named(row[0], row[1], row[2])))
            self._write_feed(source, state)
        self.saved += 1
        return len(new)

    def remove_unseen(
        self, source: str, *, state: FeedState, now: float, pass_number: int | None = None
    ) -> int:
        """Remove what was not listed since a pass began, and save ``state``; give how many went.

        ``pass_number`` is the pass's when it is not the state's latest.
        """
        number = state.pass_number if pass_number is None else pass_number
        with self._transaction():
            gone = self._db.execute(
                "DELETE FROM entry WHERE source = ? AND seen_pass < ?"
                " RETURNING family, first, last",
                (source, number),
            ).fetchall()
            for row in gone:
                self._note(now, "no longer listed", source, str(named(*row)))
            self._write_feed(source, state)
        self.saved += 1
        return len(gone)

    def remove_expired(self, source: str, *, until: float, now: float) -> int:
        """Remove the entries that had expired by ``until``; give how many went."""
        with self._transaction():
            gone = self._db.execute(
                "DELETE FROM entry WHERE source = ? AND expires <= ? RETURNING family, first, last",
                (source, until),
            ).fetchall()
            for row in gone:
                self._note(now, "expired", source, str(named(*row)))
        return len(gone)

    def count(self, source: str) -> int:
        """Count a source's entries."""
        return self._number("SELECT count(*) FROM entry WHERE source = ?", source)

    def count_new(self, source: str, networks: Sequence[Network]) -> int:
        """Count those of the networks that are not entries yet."""
        with self._errors():
            return sum(not self._has((*key(network), source)) for network in set(networks))

    def count_unseen(self, source: str, *, pass_number: int) -> int:
        """Count what ``remove_unseen`` would remove."""
        return self._number(
            "SELECT count(*) FROM entry WHERE source = ? AND seen_pass < ?",
            source,
            pass_number,
        )

    def unseen(self, source: str, *, pass_number: int, limit: int = -1) -> list[Network]:
        """Give what ``remove_unseen`` would remove, in the order of its addresses.

        ``limit`` gives no more than so many; -1 is all.
        """
        with self._errors():
            rows = self._db.execute(
                "SELECT family, first, last FROM entry WHERE source = ? AND seen_pass < ?"
                " ORDER BY family, first, last LIMIT ?",
                (source, pass_number, limit),
            ).fetchall()
        return [named(*row) for row in rows]

    def count_expired(self, source: str, now: float) -> int:
        """Count the entries whose time is over and that are still there."""
        return self._number(
            "SELECT count(*) FROM entry WHERE source = ? AND expires <= ?", source, now
        )

    def next_expiry(self, source: str) -> float | None:
        """Give when the first of a source's entries expires, in seconds since 1970."""
        with self._errors():
            (expires,) = self._db.execute(
                "SELECT min(expires) FROM entry WHERE source = ?", (source,)
            ).fetchone()
        return None if expires is None else float(expires)

    def bans(
        self, family: Family, *, grace_source: str, grace: float
    ) -> Iterator[tuple[int, int, float, str]]:
        """Give (first, last, expires, source) sorted by first.

        The entries of ``grace_source`` expire ``grace`` seconds later than the store says.
        What has expired is there until it is removed: the snapshot's readers compare the time.
        """
        with self._errors():
            rows = self._db.execute(
                "SELECT first, last, expires + (CASE source WHEN ? THEN ? ELSE 0 END), source"
                " FROM entry WHERE family = ? ORDER BY first",
                (grace_source, grace, family),
            )
            for first, last, expires, source in rows:
                yield int.from_bytes(first, "big"), int.from_bytes(last, "big"), expires, source

    # By hand, and by the detector ----------------------------------------------------------------

    def ban(
        self,
        networks: Iterable[Network],
        *,
        source: str,
        reason: str,
        expires: float,
        now: float,
    ) -> int:
        """Ban networks in one transaction; give how many this source did not list before.

        A network that it lists already has its time and its reason set anew.
        """
        once = dict.fromkeys(networks)  # before the others have to wait: it may be read from a pipe
        new = 0
        with self._transaction():
            for one in once:
                row = (*key(one), source)
                new += not self._has(row)
                self._db.execute(
                    "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)"
                    " ON CONFLICT DO UPDATE SET last_listed = excluded.last_listed,"
                    " expires = excluded.expires, reason = excluded.reason",
                    (*row, reason, now, now, expires),
                )
                self._note(now, "banned", source, _with_reason(one, reason))
        return new

    def unban(self, networks: Iterable[Network], *, sources: Sequence[str], now: float) -> int:
        """Remove just these networks' entries of these sources; give how many went."""
        once = dict.fromkeys(networks)
        gone = 0
        with self._transaction():
            for one in once:
                for source in sources:
                    found = self._db.execute(
                        "DELETE FROM entry WHERE family = ? AND first = ? AND last = ?"
                        " AND source = ?",
                        (*key(one), source),
                    ).rowcount
                    if found:
                        gone += found
                        self._note(now, "unbanned", source, str(one))
        return gone

    def remove_ended(self, *, feed: str, now: float) -> int:
        """Remove the ended entries of everyone but ``feed``, whose end is the sync's business."""
        # Not "source != ?", which would read the whole of the feed's list.
        if not self._number(
            "SELECT EXISTS (SELECT 1 FROM entry WHERE source < ? AND expires <= ?)"
            " OR EXISTS (SELECT 1 FROM entry WHERE source > ? AND expires <= ?)",
            *(feed, now, feed, now),
        ):
            return 0
        with self._transaction():
            gone = self._db.execute(
                "DELETE FROM entry WHERE (source < ? OR source > ?) AND expires <= ?"
                " RETURNING source, family, first, last",
                (feed, feed, now),
            ).fetchall()
            for source, *row in gone:
                self._note(now, "expired", source, str(named(*row)))
        return len(gone)

    # Reading -------------------------------------------------------------------------------------

    def find(self, network: Network) -> list[Entry]:
        """Give the entries of just this network."""
        return self._entries(_SELECT + "WHERE family = ? AND first = ? AND last = ?", *key(network))

    def touching(self, network: Network) -> list[Entry]:
        """Give the entries that have an address in common with this network, widest first."""
        family, first, last = key(network)
        found = []
        around = [part for block in blocks_around(network) for part in key(block)[1:]]
        if around:
            blocks = ", ".join(["(?, ?)"] * (len(around) // 2))
            found = self._entries(
                f"WITH block (low, high) AS (VALUES {blocks}) "
                + _SELECT.replace("FROM entry", "FROM block CROSS JOIN entry")
                + "WHERE family = ? AND first = low AND last = high",
                *(*around, family),
            )
        found += self._entries(
            _SELECT + "WHERE family = ? AND first BETWEEN ? AND ? AND last <= ?"
            " ORDER BY first, last DESC",
            *(family, first, last, last),
        )
        return found

    def count_by_source(self) -> dict[str, int]:
        """Count the entries of each source."""
        with self._errors():
            return dict(
                self._db.execute("SELECT source, count(*) FROM entry GROUP BY source").fetchall()
            )

    def page(
        self, wanted: Filter, *, after: tuple[Network, str] | None = None, limit: int = 1000
    ) -> list[Entry]:
        """Give the next entries in the order of their addresses, after one that was given before.

        The list may be of any length and may change meanwhile: nothing is held between two pages.
        """
        family, first, last = (wanted.family or 0, b"", b"") if after is None else key(after[0])
        source = "" if after is None else after[1]
        query = _SELECT + "WHERE (family, first, last, source) > (?, ?, ?, ?)"
        values: list[object] = [family, first, last, source]
        # A "+" keeps SQLite from another index, by which it would sort the whole list for a page.
        if wanted.source is not None:
            query += " AND +source = ?"
            values.append(wanted.source)
        if wanted.family is not None:
            query += " AND +family = ?"
            values.append(wanted.family)
        if wanted.within is not None:
            query += " AND +family = ? AND +first <= ? AND +last >= ?"
            within = key(wanted.within)
            values += [within[0], within[2], within[1]]
        if wanted.reason:
            query += " AND instr(reason, ?) > 0"
            values.append(wanted.reason)
        if wanted.expires_before is not None:
            query += " AND +expires < ?"
            values.append(wanted.expires_before)
        query += " ORDER BY family, first, last, source LIMIT ?"
        return self._entries(query, *values, limit)

    # Inside --------------------------------------------------------------------------------------

    def _entries(self, query: str, *values: object) -> list[Entry]:
        with self._errors():
            rows = self._db.execute(query, values).fetchall()
            return [Entry(named(*row[:3]), *row[3:]) for row in rows]

    def _has(self, row: tuple[Family, bytes, bytes, str]) -> bool:
        found = self._db.execute(
            "SELECT 1 FROM entry WHERE family = ? AND first = ? AND last = ? AND source = ?", row
        ).fetchone()
        return found is not None


def _with_reason(one: Network, reason: str) -> str:
    return f"{one} ({reason})" if reason else str(one)
