"""The queue of sightings on the disk, and beside it the few unproven sources that are kept.

Workers write and the reporter takes, through a connection each. A row is in the file's log before
the SIP answer leaves, and what a process wrote outlives it: ``synchronous=NORMAL`` spares the
workers the wait for the disk, which only a power cut makes a difference to. The reporter has
``FULL``: what it hands out, and with it all that was written before, is on the disk before it is
sent. Else a power cut could give a sequence that the feed knows already to another sighting.

A row takes up further messages of the same source, transport, method and tool until it is handed
out (``batch`` is set); from then on it stays as it is, until the feed settled it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from apiban.errors import StoreError
from apiban.honeypot.records import Sighting, Unproven

__all__ = ["MOST_USERS", "Queue"]

MOST_USERS: Final = 20
_MOST_MESSAGES: Final = 1_000_000
_VERSION: Final = 1
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


class Queue:
    """One process's connection to the queue.

    ``durable`` is for the reporter. Every method that writes is one transaction.

    Raises:
        StoreError: it cannot be opened; every method raises it when SQLite fails.

    """

    def __init__(self, path: Path, *, durable: bool = False, wait: float = 1.0) -> None:
        self._path = path
        with self._errors():
            self._db = sqlite3.connect(path, timeout=wait, isolation_level=None)
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
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
        """The queue's own name: 32 hex digits, made once with the file."""
        with self._errors():
            (name,) = self._db.execute("SELECT queue FROM identity").fetchone()
        return str(name)

    # Sightings ---------------------------------------------------------------------------------

    def add(self, new: Sighting, *, max_rows: int) -> bool:
        """Queue a sighting; False when the queue is full and has no open row to take it up."""
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
            if self._rows() >= max_rows:
                return False
            self._db.execute(
                "INSERT INTO sighting (source, transport, method, tool, user_agent, dialled,"
                " users, proof, at, count) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *key,
                    *(new.user_agent, new.dialled, _users(new.users)),
                    *(new.proof, new.at, new.count),
                ),
            )
        return True

    def rows(self) -> int:
        """Count the rows that the feed has not settled."""
        with self._errors():
            return self._rows()

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
            self._db.executemany(
                "DELETE FROM sighting WHERE batch IS NOT NULL AND sequence = ?",
                [(one.sequence,) for one in batch],
            )
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
        """Count by the ends: rows come at the one, and go at the other, without a gap."""
        first, last = self._db.execute(
            "SELECT (SELECT min(sequence) FROM sighting), (SELECT max(sequence) FROM sighting)"
        ).fetchone()
        return 0 if first is None else int(last - first + 1)

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
                self._db.execute(f"PRAGMA user_version={_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have ended it already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError, TypeError, ValueError) as error:
            # A damaged file can give SQLite's messages, and its values, any bytes.
            raise StoreError(f"{self._path}: {' '.join(str(error).split())}") from None


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


def _users(names: Sequence[str]) -> str:
    return json.dumps(list(dict.fromkeys(names))[:MOST_USERS])
