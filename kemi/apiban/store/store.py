"""The durable state of one node: SQLite in WAL mode.

Every method that writes is one transaction, so that a process killed at any moment leaves either
the state before it or the state after it. One process writes at a time (the sync's lock); others
may read, and later write, through their own connection.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Final, Self

from apiban.address import Family, Network
from apiban.sqlite import errors, transaction
from apiban.store.migrations import check_version, migrate
from apiban.store.records import FeedState, SentRequest

__all__ = ["Store"]

_JOURNAL_ROWS: Final = 100_000
_BUSY_SECONDS: Final = 5.0


class Store:
    """Entries, the allow list, feed states, request times, and a journal of changes.

    Raises:
        StoreTooNew: a newer version wrote the file.
        StoreError: it cannot be opened; every method raises it when SQLite fails.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.saved = 0  # how often the feed's state, and what belongs to it, was written
        with self._errors():
            self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                check_version(self._db)
                self._db.execute("PRAGMA journal_mode=WAL")
                # A page arrives a few times a minute at most: the disk may take its time.
                self._db.execute("PRAGMA synchronous=FULL")
                migrate(self._db)
                # SQLite gives the files beside it the same mode: a group may work together.
                with contextlib.suppress(OSError):
                    path.chmod(0o660)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Entries -----------------------------------------------------------------------------------

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
        rows = [(*_key(network), source) for network in dict.fromkeys(networks)]
        with self._transaction():
            new = [row for row in rows if not self._has(row)]
            self._db.executemany(
                "INSERT INTO entry VALUES (?, ?, ?, ?, '', ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET last_listed = excluded.last_listed,"
                " expires = excluded.expires, seen_pass = excluded.seen_pass",
                [(*row, listed, listed, expires, state.pass_number) for row in rows],
            )
            for row in new:
                self._note(listed, "listed", source, str(_network(row[0], row[1], row[2])))
            self._write_feed(source, state)
        self.saved += 1
        return len(new)

    def remove_unseen(self, source: str, *, state: FeedState, now: float) -> int:
        """Remove what was not listed since the pass began, and end it; give how many went."""
        with self._transaction():
            gone = self._db.execute(
                "DELETE FROM entry WHERE source = ? AND seen_pass < ?"
                " RETURNING family, first, last",
                (source, state.pass_number),
            ).fetchall()
            for row in gone:
                self._note(now, "no longer listed", source, str(_network(*row)))
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
                self._note(now, "expired", source, str(_network(*row)))
        return len(gone)

    def count(self, source: str) -> int:
        """Count a source's entries."""
        return self._number("SELECT count(*) FROM entry WHERE source = ?", source)

    def count_new(self, source: str, networks: Sequence[Network]) -> int:
        """Count those of the networks that are not entries yet."""
        with self._errors():
            return sum(not self._has((*_key(network), source)) for network in set(networks))

    def count_unseen(self, source: str, *, pass_number: int) -> int:
        """Count what ``remove_unseen`` would remove."""
        return self._number(
            "SELECT count(*) FROM entry WHERE source = ? AND seen_pass < ?",
            source,
            pass_number,
        )

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
    ) -> Iterator[tuple[int, int, float]]:
        """Give (first, last, expires) sorted by first.

        The entries of ``grace_source`` expire ``grace`` seconds later than the store says.
        What has expired is there until it is removed: the snapshot's readers compare the time.
        """
        with self._errors():
            rows = self._db.execute(
                "SELECT first, last, expires + (CASE source WHEN ? THEN ? ELSE 0 END)"
                " FROM entry WHERE family = ? ORDER BY first",
                (grace_source, grace, family),
            )
            for first, last, expires in rows:
                yield int.from_bytes(first, "big"), int.from_bytes(last, "big"), expires

    def find(self, network: Network) -> list[tuple[str, float, float, float]]:
        """Give (source, first listed, last listed, expires) of the entries of just this network."""
        with self._errors():
            return self._db.execute(
                "SELECT source, first_listed, last_listed, expires FROM entry"
                " WHERE family = ? AND first = ? AND last = ?",
                _key(network),
            ).fetchall()

    # The allow list ----------------------------------------------------------------------------

    def allow(
        self, network: Network, *, reason: str, now: float, expires: float | None = None
    ) -> None:
        """Save a network from every ban, until ``expires`` or for good."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO allow VALUES (?, ?, ?, ?, ?, ?)",
                (*_key(network), reason, now, expires),
            )
            self._note(now, "allowed", "allow", str(network))

    def next_allow_end(self, now: float) -> float | None:
        """Give when the next entry of the allow list ends, in seconds since 1970."""
        with self._errors():
            (end,) = self._db.execute(
                "SELECT min(expires) FROM allow WHERE expires > ?", (now,)
            ).fetchone()
        return None if end is None else float(end)

    def unallow(self, network: Network, *, now: float) -> bool:
        """Take a network off the allow list; tell whether it was on it."""
        with self._transaction():
            gone = self._db.execute(
                "DELETE FROM allow WHERE family = ? AND first = ? AND last = ?", _key(network)
            ).rowcount
            if gone:
                self._note(now, "no longer allowed", "allow", str(network))
        return bool(gone)

    def allowed(self, now: float) -> list[Network]:
        """Give the networks of the allow list that are in force."""
        with self._errors():
            rows = self._db.execute(
                "SELECT family, first, last FROM allow WHERE expires IS NULL OR ? < expires", (now,)
            ).fetchall()
        return [_network(*row) for row in rows]

    # Feeds -------------------------------------------------------------------------------------

    def feed(self, name: str, identity: str) -> FeedState:
        """Give where the feed's sync stands; the list of another identity starts anew.

        The number of the last pass goes on, so that entries of the old list count as unseen.
        """
        with self._errors():
            row = self._db.execute(
                "SELECT identity, cursor, complete_at, pass_number, pass_cursor, pass_started,"
                " pass_ended, held, held_since FROM feed WHERE name = ?",
                (name,),
            ).fetchone()
        if row is None:
            return FeedState(identity)
        state = FeedState(*row)
        if state.identity != identity:
            return FeedState(identity, pass_number=state.pass_number)
        return state

    def save_feed(self, name: str, state: FeedState) -> None:
        """Save where the feed's sync stands."""
        with self._transaction():
            self._write_feed(name, state)

    def add_request(self, feed: str, request: SentRequest) -> int:
        """Note a request before it is sent; give its number."""
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO request (feed, boot, until) VALUES (?, ?, ?)",
                (feed, request.boot, request.until),
            )
        return int(cursor.lastrowid or 0)

    def settle_request(self, number: int, until: float) -> None:
        """Put the moment of its answer in the place of the latest one possible."""
        with self._transaction():
            self._db.execute("UPDATE request SET until = ? WHERE id = ?", (until, number))

    def requests(self, feed: str) -> list[SentRequest]:
        """Give the requests that were noted and not yet forgotten."""
        with self._errors():
            rows = self._db.execute(
                "SELECT boot, until FROM request WHERE feed = ? ORDER BY id", (feed,)
            ).fetchall()
        return [SentRequest(*row) for row in rows]

    def forget_requests(self, feed: str, *, boot: str, before: float) -> None:
        """Drop the requests of this boot that ended before, and all of earlier boots."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM request WHERE feed = ? AND (boot != ? OR until < ?)",
                (feed, boot, before),
            )

    # State and journal -------------------------------------------------------------------------

    def state(self, name: str) -> str | None:
        """Give a named value, such as ``mode``."""
        with self._errors():
            row = self._db.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_state(self, name: str, value: str, *, now: float) -> None:
        """Save a named value, and note the change in the journal."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, value))
            self._note(now, name, "settings", value)

    def journal(self, limit: int = 100) -> list[tuple[float, str, str, str]]:
        """Give the latest changes as (at, action, source, what), newest first."""
        with self._errors():
            return self._db.execute(
                "SELECT at, action, source, what FROM journal ORDER BY id DESC LIMIT ?", (limit,)
            ).fetchall()

    # Inside ------------------------------------------------------------------------------------

    def _has(self, row: tuple[Family, bytes, bytes, str]) -> bool:
        found = self._db.execute(
            "SELECT 1 FROM entry WHERE family = ? AND first = ? AND last = ? AND source = ?", row
        ).fetchone()
        return found is not None

    def _number(self, query: str, *values: object) -> int:
        with self._errors():
            (number,) = self._db.execute(query, values).fetchone()
        return int(number)

    def _write_feed(self, name: str, state: FeedState) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO feed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (name, *astuple(state)),
        )

    def _note(self, at: float, action: str, source: str, what: str) -> None:
        number = self._db.execute(
            "INSERT INTO journal (at, action, source, what) VALUES (?, ?, ?, ?)",
            (at, action, source, what),
        ).lastrowid
        if number and number % 1000 == 0:
            self._db.execute("DELETE FROM journal WHERE id <= ?", (number - _JOURNAL_ROWS,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors(), transaction(self._db):
            yield

    def _errors(self) -> AbstractContextManager[None]:
        return errors(self._path)


def _key(network: Network) -> tuple[Family, bytes, bytes]:
    size = 4 if network.family == 4 else 16
    return network.family, network.first.to_bytes(size, "big"), network.last.to_bytes(size, "big")


def _network(family: Family, first: bytes, last: bytes) -> Network:
    return Network(family, int.from_bytes(first, "big"), int.from_bytes(last, "big"))
