"""The SQLite file behind the store: opened, migrated, written in whole transactions."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Self

from apiban.address import Family, Network
from apiban.errors import StoreError
from apiban.sqlite import errors, transaction
from apiban.store.migrations import check_version, migrate

__all__ = ["StoreFile", "blocks_around", "key", "make_shared", "network"]

_JOURNAL_ROWS: Final = 100_000
_BUSY_SECONDS: Final = 5.0
_POLL: Final = 0.01

# What names a network in a table: family, first and last address.
Key = tuple[Family, bytes, bytes]


class StoreFile:
    """One connection to the store's file, and its journal.

    Raises:
        StoreTooNew: a newer version wrote the file.
        StoreError: it cannot be opened, or is a link; every method raises it when SQLite fails.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.saved = 0  # how often the feed's state, and what belongs to it, was written
        self.noted = 0  # the journal's number of the latest change of this object's own
        with self._errors():
            # SQLite gives the files beside it the mode and, as root, the owner that it has now.
            make_shared(path)
            self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                check_version(self._db)
                self._turn_to_wal()
                # A page arrives a few times a minute at most: the disk may take its time.
                self._db.execute("PRAGMA synchronous=FULL")
                migrate(self._db)
                self._version = self._data_version()
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

    def changed_outside(self) -> bool:
        """Tell whether others wrote to the file since the last call; it reads no table."""
        with self._errors():
            version = self._data_version()
        changed, self._version = version != self._version, version
        return changed

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make one transaction of all that is read and written within: all of it, or nothing."""
        with self._transaction():
            yield

    @contextmanager
    def steady(self) -> Iterator[None]:
        """See within it one state of the file, whatever others write; nothing may be written."""
        with self._errors():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                if self._db.in_transaction:  # what failed may have ended it
                    self._db.execute("ROLLBACK")

    # The journal -------------------------------------------------------------------------------

    def position(self) -> int:
        """Give the number of the latest change in the journal: each change has a higher one."""
        with self._errors():
            (number,) = self._db.execute("SELECT max(id) FROM journal").fetchone()
        return int(number or 0)

    def journal(self, limit: int = 100) -> list[tuple[float, str, str, str]]:
        """Give the latest changes as (at, action, source, what), newest first."""
        with self._errors():
            return self._db.execute(
                "SELECT at, action, source, what FROM journal ORDER BY id DESC LIMIT ?", (limit,)
            ).fetchall()

    # Inside ------------------------------------------------------------------------------------

    def _turn_to_wal(self) -> None:
        """Turn a new file to WAL; SQLite does not wait for another process that is just at it."""
        give_up = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() >= give_up:
                    raise
                time.sleep(_POLL)
            else:
                return

    def _data_version(self) -> int:
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _number(self, query: str, *values: object) -> int:
        with self._errors():
            (number,) = self._db.execute(query, values).fetchone()
        return int(number)

    def _note(self, at: float, action: str, source: str, what: str) -> None:
        number = self._db.execute(
            "INSERT INTO journal (at, action, source, what) VALUES (?, ?, ?, ?)",
            (at, action, source, what),
        ).lastrowid
        self.noted = number or 0
        if number and number % 1000 == 0:
            self._db.execute("DELETE FROM journal WHERE id <= ?", (number - _JOURNAL_ROWS,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            if self._db.in_transaction:  # a part of what is done together
                yield
                return
            with transaction(self._db):
                yield

    def _errors(self) -> AbstractContextManager[None]:
        return errors(self._path)


def make_shared(path: Path) -> None:
    """Make a file of the state folder, if it is not there, for the folder's owner and its group.

    Who is there first may be root, or any member of the group, at the command line. What cannot
    be done is left to whoever opens the file, and says why.

    Raises:
        StoreError: a link is there, or something else that is no file: each member of the group
            can put one there, and root would follow it.

    """
    with contextlib.suppress(OSError):
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)
        except FileExistsError:
            _share(path)
            return
        try:
            folder = path.parent.stat()
            os.fchmod(handle, 0o660)  # whatever the umask
            os.fchown(handle, folder.st_uid if os.geteuid() == 0 else -1, folder.st_gid)
        finally:
            os.close(handle)


def _share(path: Path) -> None:
    # Not opened but pointed at: to close an open file would end SQLite's locks of this process on
    # it, and a named pipe would be waited for.
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISLNK(mode):
            raise StoreError(f"{path}: is a link, and none is followed here; move the file itself")
        if not stat.S_ISREG(mode):
            raise StoreError(f"{path}: is no file")
        Path(f"/proc/self/fd/{handle}").chmod(0o660)  # such a handle has no fchmod
    finally:
        os.close(handle)


def key(one: Network) -> Key:
    """Give what names a network in a table."""
    size = 4 if one.family == 4 else 16
    return one.family, one.first.to_bytes(size, "big"), one.last.to_bytes(size, "big")


def network(family: Family, first: bytes, last: bytes) -> Network:
    """Give the network that a table's columns name."""
    return Network(family, int.from_bytes(first, "big"), int.from_bytes(last, "big"))


def blocks_around(one: Network) -> Iterator[Network]:
    """Give every CIDR block that holds this network and more, widest first.

    All networks in the store are CIDR blocks: so those around one are found by name, in a list of
    any length.
    """
    width = 32 if one.family == 4 else 128
    for prefix in range(one.prefix):
        size = 1 << (width - prefix)
        first = one.first & -size
        yield Network(one.family, first, first + size - 1)
