"""The store's schema, as named steps; each is applied once, in one transaction of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from apiban.errors import StoreTooNew
from apiban.sqlite import transaction

__all__ = ["MIGRATIONS", "check_version", "migrate"]

MIGRATIONS: Final[tuple[tuple[str, str], ...]] = (
    (
        "first tables",
        """
        CREATE TABLE entry (
            -- first and last are 4 or 16 bytes, big-endian: they sort as the numbers do.
            family INTEGER NOT NULL,
            first BLOB NOT NULL,
            last BLOB NOT NULL,
            source TEXT NOT NULL,
            reason TEXT NOT NULL,
            first_listed REAL NOT NULL,
            last_listed REAL NOT NULL,
            expires REAL NOT NULL,
            seen_pass INTEGER NOT NULL,
            PRIMARY KEY (family, first, last, source)
        ) WITHOUT ROWID;
        CREATE INDEX entry_by_expiry ON entry (source, expires);
        CREATE TABLE allow (
            family INTEGER NOT NULL,
            first BLOB NOT NULL,
            last BLOB NOT NULL,
            reason TEXT NOT NULL,
            added REAL NOT NULL,
            expires REAL,
            PRIMARY KEY (family, first, last)
        ) WITHOUT ROWID;
        CREATE TABLE feed (
            name TEXT PRIMARY KEY,
            identity TEXT NOT NULL,
            cursor TEXT,
            complete_at REAL,
            pass_number INTEGER NOT NULL,
            pass_cursor TEXT,
            pass_started REAL,
            pass_ended REAL,
            held INTEGER NOT NULL,
            held_since REAL
        );
        CREATE TABLE request (
            id INTEGER PRIMARY KEY,
            feed TEXT NOT NULL,
            boot TEXT NOT NULL,
            until REAL NOT NULL
        );
        CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL);
        CREATE TABLE journal (
            id INTEGER PRIMARY KEY,
            at REAL NOT NULL,
            action TEXT NOT NULL,
            source TEXT NOT NULL,
            what TEXT NOT NULL
        );
        """,
    ),
    (
        "who allows, the operator's mode, and tasks for the sync",
        """
        CREATE TABLE allow_by_source (
            family INTEGER NOT NULL,
            first BLOB NOT NULL,
            last BLOB NOT NULL,
            source TEXT NOT NULL,
            reason TEXT NOT NULL,
            added REAL NOT NULL,
            expires REAL,
            PRIMARY KEY (family, first, last, source)
        ) WITHOUT ROWID;
        INSERT INTO allow_by_source
            SELECT family, first, last, 'operator', reason, added, expires FROM allow;
        DROP TABLE allow;
        ALTER TABLE allow_by_source RENAME TO allow;
        CREATE TABLE mode (
            -- One row at most: the mode that overrules the settings', for good or for a time.
            id INTEGER PRIMARY KEY CHECK (id = 1),
            mode TEXT NOT NULL,
            added REAL NOT NULL,
            expires REAL
        );
        CREATE TABLE task (
            -- What the command line asks of the process that syncs.
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at REAL NOT NULL,
            name TEXT NOT NULL,
            taken REAL
        );
        """,
    ),
)


def check_version(connection: sqlite3.Connection) -> int:
    """Give how many steps were applied, before anything is touched.

    Raises:
        StoreTooNew: a newer version wrote it.

    """
    (done,) = connection.execute("PRAGMA user_version").fetchone()
    if done > len(MIGRATIONS):
        raise StoreTooNew(
            f"the store is of version {done}, and this package knows {len(MIGRATIONS)}: "
            "install the newer package again, or move the store away"
        )
    return int(done)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema to this version's.

    Raises:
        StoreTooNew: a newer version wrote it; nothing was touched.
        sqlite3.Error: it cannot be read or written.

    """
    done = check_version(connection)
    for number, (_, script) in enumerate(MIGRATIONS[done:], start=done + 1):
        # The step and its number go in together, and once: another process may be at it as well.
        with transaction(connection):
            if check_version(connection) < number:
                for statement in _statements(script):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={number}")


def _statements(script: str) -> Iterator[str]:
    """Divide a script, since ``executescript`` would end the transaction that it is in."""
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
