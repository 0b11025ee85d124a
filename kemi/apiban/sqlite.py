"""What every SQLite file of ours needs: whole transactions, and errors fit for an operator."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apiban.errors import StoreError

__all__ = ["errors", "glance", "transaction"]


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Keep all that is written, or none of it; the connection must be in autocommit mode."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk may have ended it already
            db.execute("ROLLBACK")
        raise


@contextmanager
def errors(
    path: Path, kind: Callable[[Exception], type[StoreError]] = lambda _: StoreError
) -> Iterator[None]:
    """Turn SQLite's errors, and those of damaged values, into one line that names the file.

    Raises:
        StoreError: or the kind of it that an error is.

    """
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError, TypeError, ValueError) as error:
        # A damaged file can give SQLite's messages, and its values, any bytes.
        raise kind(error)(f"{path}: {' '.join(str(error).split())}") from None


def glance(path: Path, query: str, *values: object) -> tuple[Any, ...] | None:
    """Read a row of a SQLite file of ours without waiting and writing; None if that cannot be."""
    with contextlib.suppress(sqlite3.Error):
        # A connection for each glance: the file may be replaced, and none is held over a fork.
        address = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=0)) as db:
            row: tuple[Any, ...] | None = db.execute(query, values).fetchone()
            return row
    return None
