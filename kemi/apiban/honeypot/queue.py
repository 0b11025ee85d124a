"""The queue of sightings on the disk, and beside it the few unproven sources that are kept.

Workers write and the reporter takes, through a connection each. A row is in the file's log before
the SIP answer leaves, and what a process wrote outlives it: ``synchronous=NORMAL`` spares the
workers the wait for the disk, which only a power cut makes a difference to. The reporter has
``FULL``: what it hands out, and with it all that was written before, is on the disk before it is
sent. Else a power cut could give a sequence that the feed knows already to another sighting.

A row takes up further messages of the same source, transport, method and tool until it is handed
out (``batch`` is set); from then on it stays as it is, until the feed settled it.

Whoever has many addresses has one network: of the rows of an IPv4 address, or of an IPv6 network of
64 bits, a bounded number waits, so that one host cannot keep all others out.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, Self

from apiban.address import pack
from apiban.errors import QueueBusy, StoreError
from apiban.honeypot.records import Sighting, Unproven
from apiban.sqlite import errors, transaction

__all__ = ["MOST_OF_NETWORK", "MOST_USERS", "ROWS", "Queue"]

MOST_USERS: Final = 20
MOST_OF_NETWORK: Final = 64
# How many rows there are, by the ends: rows come at the one, and go at the other, without a gap.
ROWS: Final = """
    SELECT coalesce(1 + (SELECT max(sequence) FROM sighting)
        - (SELECT min(sequence) FROM sighting), 0)
"""
_MOST_MESSAGES: Final = 1_000_000
_LARGEST_LOG: Final = 4 << 20  # bytes: then its space is given back
_TRIM_WAIT: Final = 0.1
_VERSION: Final = 2
_SCHEMA: Final = """
    CREATE TABLE identity (queue TEXT NOT NULL);
    CREATE TABLE sighting (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,  -- a number is never given twice
        source TEXT NOT NULL,
        transport TEXT NOT NULL,
        method TEXT NOT NULL,
        tool TEXT NOT NULL,  -- '': none, here and in unproven
        user_agent TEXT,
        dialled TEXT,
        users TEXT NOT NULL,  -- a JSON list
        proof TEXT NOT NULL,
        at REAL NOT NULL,
        count INTEGER NOT NULL,
        batch INTEGER
    );
    CREATE UNIQUE INDEX sighting_open ON sighting (source, transport, method, tool)
        WHERE batch IS NULL;
    CREATE INDEX sighting_batch ON sighting (batch, sequence) WHERE batch IS NOT NULL;
    CREATE TABLE unproven (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        source TEXT NOT NULL,
        transport TEXT NOT NULL,
        method TEXT NOT NULL,
        tool TEXT NOT NULL,
        user_agent TEXT,
        first REAL NOT NULL,
        last REAL NOT NULL,
        count INTEGER NOT NULL,
        UNIQUE (source, transport, method, tool)
    );
    CREATE INDEX unproven_last ON unproven (last);
"""
_OF_NETWORK: Final = """
    ALTER TABLE sighting ADD COLUMN network TEXT NOT NULL DEFAULT '';
    UPDATE sighting SET network = network_of(source);
    CREATE INDEX sighting_network ON sighting (network);
"""


class Queue:
    """One process's connection to the queue.

    ``durable`` is for the reporter. Every method that writes is one transaction.

    Raises:
        StoreError: it cannot be opened; every method raises it when SQLite fails.

    """

    def __init__(self, path: Path, *, durable: bool = False, wait: float = 1.0) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._wait = wait
        with self._errors():
            self._db = sqlite3.connect(path, timeout=wait, isolation_level=None)
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute(f"PRAGMA journal_size_limit={_LARGEST_LOG}")
                self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._migrate()
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

    @property
    def identity(self) -> str:
        """The queue's own name: 32 hex digits, made with the file, and anew by ``renew``."""
        with self._errors():
            (name,) = self._db.execute("SELECT queue FROM identity").fetchone()
        return str(name)

    def renew(self, taken: Sequence[Sighting]) -> None:
        """Take a new identity, and let go of what the feed took under the old one.

        For a file that turned out to be an older copy: the feed knows the next numbers already,
        for other sightings.
        """
        with self._transaction():
            self._delete(taken)
            self._db.execute("UPDATE identity SET queue = ?", (secrets.token_hex(16),))

    def trim(self) -> bool:
        """Give the space of a long log back, if the others leave a moment for it; tell whether.

        SQLite does so by itself only when nobody reads or writes just then: under load never.
        """
        try:
            if self._log.stat().st_size <= _LARGEST_LOG:
                return False
        except OSError:
            return False
        with self._errors():
            self._db.execute(f"PRAGMA busy_timeout={int(_TRIM_WAIT * 1000)}")
            try:
                (busy, *_) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._db.execute(f"PRAGMA busy_timeout={int(self._wait * 1000)}")
        return not busy

    # Sightings ---------------------------------------------------------------------------------

    def add(self, new: Sighting, *, max_rows: int) -> bool:
        """Queue a sighting; False when no open row takes it up, and there is room for no other.

        There is none when the queue is full, or when enough rows of the source's network wait.

        Raises:
            AddressError: the source is no address.

        """
        network = _network(new.source)
        key = (new.source, new.transport, new.method, new.tool or "")
        with self._transaction():
            row = self._db.execute(
                "SELECT sequence, users FROM sighting WHERE batch IS NULL"
                " AND source = ? AND transport = ? AND method = ? AND tool = ?",
                key,
            ).fetchone()
            if row is not None:
                sequence, users = row
                self._db.execute(
                    "UPDATE sighting SET at = max(at, ?), count = min(count + ?, ?), users = ?,"
                    " user_agent = coalesce(?, user_agent), dialled = coalesce(?, dialled)"
                    " WHERE sequence = ?",
                    (
                        *(new.at, new.count, _MOST_MESSAGES),
                        _users((*json.loads(users), *new.users)),
                        *(new.user_agent, new.dialled, sequence),
                    ),
                )
                return True
            if self._rows() >= max_rows or self._is_crowded(network):
                return False
            self._db.execute(
                "INSERT INTO sighting (network, source, transport, method, tool, user_agent,"
                " dialled, users, proof, at, count) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(network, *key),
                    *(new.user_agent, new.dialled, _users(new.users)),
                    *(new.proof, new.at, new.count),
                ),
            )
        return True

    def rows(self) -> int:
        """Count the rows that the feed has not settled."""
        with self._errors():
            return self._rows()

    def is_handed_out(self) -> bool:
        """Tell whether a batch is handed out that is not settled: ``take`` will give no other."""
        with self._errors():
            return self._oldest_batch() is not None

    def take(self, limit: int) -> list[Sighting]:
        """Give the batch that is handed out; when there is none, hand out the oldest rows.

        What is handed out is the same at each call, in whatever process, until it is settled.
        """
        with self._transaction():
            batch = self._oldest_batch()
            if batch is None:
                self._db.execute(
                    "UPDATE sighting SET batch = 0 WHERE sequence IN"
                    " (SELECT sequence FROM sighting ORDER BY sequence LIMIT ?)",
                    (limit,),
                )
                batch = 0
            rows = self._db.execute(
                "SELECT tool, users, source, transport, method, user_agent, dialled, proof, at,"
                " count, sequence FROM sighting WHERE batch = ? ORDER BY sequence",
                (batch,),
            ).fetchall()
        return [_sighting(*row) for row in rows]

    def halve(self, batch: Sequence[Sighting]) -> None:
        """Put the later half of what is handed out into a batch of its own, for another time."""
        keep = batch[(len(batch) - 1) // 2].sequence
        with self._transaction():
            oldest = self._oldest_batch()
            self._db.execute("UPDATE sighting SET batch = batch + 1 WHERE batch > ?", (oldest,))
            self._db.execute(
                "UPDATE sighting SET batch = batch + 1 WHERE batch = ? AND sequence > ?",
                (oldest, keep),
            )

    def settle(self, batch: Sequence[Sighting], unproven: Sequence[Unproven] = ()) -> None:
        """Remove what the feed took, or refused for good.

        An unproven source that came again meanwhile stays, with what is new.
        """
        with self._transaction():
            self._delete(batch)
            self._db.executemany(
                "DELETE FROM unproven WHERE number = ? AND count <= ?",
                [(one.number, one.count) for one in unproven],
            )
            self._db.executemany(
                "UPDATE unproven SET count = count - ?, first = ? WHERE number = ?",
                [(one.count, one.last, one.number) for one in unproven],
            )

    # Unproven sources --------------------------------------------------------------------------

    def note(self, new: Unproven, *, keep: int) -> int:
        """Keep an unproven source, with ``keep`` at most; give how many messages were let go."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO unproven (source, transport, method, tool, user_agent, first, last,"
                " count) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (source, transport, method, tool) DO UPDATE SET"
                " last = max(last, excluded.last), count = min(count + excluded.count, ?),"
                " user_agent = coalesce(excluded.user_agent, user_agent)",
                (
                    *(new.source, new.transport, new.method, new.tool or "", new.user_agent),
                    *(new.first, new.last, new.count, _MOST_MESSAGES),
                ),
            )
            (rows,) = self._db.execute("SELECT count(*) FROM unproven").fetchone()
            gone = self._db.execute(
                "DELETE FROM unproven WHERE number IN"
                " (SELECT number FROM unproven ORDER BY last, number LIMIT ?) RETURNING count",
                (max(rows - keep, 0),),
            ).fetchall()
        return sum(count for (count,) in gone)

    def unproven(self, limit: int) -> list[Unproven]:
        """Give the unproven sources that were kept longest."""
        with self._errors():
            rows = self._db.execute(
                "SELECT source, transport, method, tool, user_agent, first, last, count, number"
                " FROM unproven ORDER BY last, number LIMIT ?",
                (limit,),
            ).fetchall()
        return [
            Unproven(
                source, transport, method, tool or None, user_agent, first, last, count, number
            )
            for source, transport, method, tool, user_agent, first, last, count, number in rows
        ]

    # Inside ------------------------------------------------------------------------------------

    def _rows(self) -> int:
        (rows,) = self._db.execute(ROWS).fetchone()
        return int(rows)

    def _is_crowded(self, network: str) -> bool:
        (rows,) = self._db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM sighting WHERE network = ? LIMIT ?)",
            (network, MOST_OF_NETWORK),
        ).fetchone()
        return int(rows) >= MOST_OF_NETWORK

    def _delete(self, batch: Sequence[Sighting]) -> None:
        self._db.executemany(
            "DELETE FROM sighting WHERE batch IS NOT NULL AND sequence = ?",
            [(one.sequence,) for one in batch],
        )

    def _oldest_batch(self) -> int | None:
        (batch,) = self._db.execute(
            "SELECT min(batch) FROM sighting WHERE batch IS NOT NULL"
        ).fetchone()
        return None if batch is None else int(batch)

    def _migrate(self) -> None:
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise StoreError(f"{self._path}: is of version {version}, which is newer than this")
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO identity VALUES (?)", (secrets.token_hex(16),))
            if version < _VERSION:
                self._db.create_function("network_of", 1, _network, deterministic=True)
                for statement in _OF_NETWORK.split(";\n"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors(), transaction(self._db):
            yield

    def _errors(self) -> AbstractContextManager[None]:
        return errors(self._path, _kind_of)


def _sighting(tool: str, users: str, *rest: Any) -> Sighting:
    source, transport, method, user_agent, dialled, proof, at, count, sequence = rest
    return Sighting(
        source=source,
        transport=transport,
        method=method,
        tool=tool or None,
        user_agent=user_agent,
        dialled=dialled,
        users=tuple(json.loads(users)),
        proof=proof,
        at=at,
        count=count,
        sequence=sequence,
    )


def _network(source: str) -> str:
    """Name an IPv4 address, or an IPv6 network of 64 bits."""
    return pack(source)[:8].hex()


def _kind_of(error: Exception) -> type[StoreError]:
    code = getattr(error, "sqlite_errorcode", 0)  # an extended one, in whose last byte is the plain
    return QueueBusy if code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} else StoreError


def _users(names: Sequence[str]) -> str:
    return json.dumps(list(dict.fromkeys(names))[:MOST_USERS])
