"""The way to the database: SQLite or PostgreSQL, one writer of the list at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from apiban.errors import StoreError, StoreTooNew
from apiban.settings.secret import Secret

__all__ = ["Database", "upsert"]

_HERE: Final = Path(__file__).parent
_BUSY_SECONDS: Final = 30.0
# Any numbers: they name this program's locks among a PostgreSQL database's others.
_LIST_LOCK: Final = 0x41504942
_MIGRATION_LOCK: Final = 0x41504943


class Database:
    """One feed's database.

    Every method of the modules that use it is one transaction, so that a process killed at any
    moment leaves the state before it or the state after it, and what was acknowledged stays.

    Raises:
        StoreTooNew: a newer version made the tables.
        StoreError: it cannot be opened; ``read`` and ``write`` raise it when the database fails.

    """

    def __init__(self, url: Secret) -> None:
        self._url = make_url(url.reveal())
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self.engine: Engine = _sqlite_engine(self._url) if self._sqlite else _engine(self._url)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the data, and writes nothing."""
        with self._errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def moment(self) -> Iterator[Connection]:
        """Give a connection whose every question sees the same moment (for the whole store)."""
        with self._errors(), self.engine.connect() as connection:
            if not self._sqlite:  # where each transaction has one anyway
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def write(self, *, the_list: bool = True) -> Iterator[Connection]:
        """Give a connection whose changes are all kept, or none.

        Whoever changes the list is alone in doing so until the end of the transaction: an ID is
        given and seen in the order of the commits, so that no client pages past one that is
        still to come.
        """
        with self._errors(), self.engine.connect() as connection:
            connection.execution_options(apiban_write=True)
            with connection.begin():
                if the_list and not self._sqlite:
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LIST_LOCK})"))
                yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            # The cause is the driver's own text; the statement and its values stay out of it.
            cause = getattr(error, "orig", None) or type(error).__name__
            raise StoreError(f"the feed's database: {' '.join(str(cause).split())[:300]}") from None

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(_HERE))
        try:
            with self.write(the_list=False) as connection:
                if not self._sqlite:
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except CommandError:
            raise StoreTooNew(
                "the feed's database was made by a newer version; nothing in it was touched"
            ) from None


def upsert(connection: Connection, table: Table) -> Any:
    """Give an INSERT that knows ``on_conflict_do_update``, in the database's own dialect."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def go_on_numbering(connection: Connection) -> None:
    """Let new rows be numbered above those that were put in with their numbers."""
    if connection.dialect.name == "sqlite":
        return  # it numbers from the highest
    for table in ("key", "journal"):
        connection.execute(
            text(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), "  # noqa: S608 - ours
                f"(SELECT coalesce(max(id), 0) + 1 FROM {table}), false)"
            )
        )


def _engine(url: Any) -> Engine:
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        hide_parameters=True,
        pool_pre_ping=True,  # a database that was restarted costs no request
        # A connection for each thread that serves; and one that hangs is an error soon.
        pool_size=10,
        max_overflow=40,
        pool_timeout=3,
        # A statement that is prepared while a table is small keeps the plan for a small one.
        connect_args={
            "prepare_threshold": None,
            "connect_timeout": 3,
            "tcp_user_timeout": 10_000,
            "keepalives_idle": 10,
            "keepalives_interval": 3,
            "keepalives_count": 3,
            "options": "-c statement_timeout=60s -c lock_timeout=20s",
        },
    )


def _sqlite_engine(url: Any) -> Engine:
    folder = Path(url.database).parent
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    if not folder.is_dir():
        raise StoreError(f"{folder}: cannot be made; the feed's database is to be there")
    with contextlib.suppress(OSError):  # SQLite says better what is wrong
        # It holds hashes of keys; SQLite gives the files beside it the same mode.
        os.close(os.open(url.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGINs would come too late
        connection.execute("PRAGMA journal_mode=WAL")
        # An acknowledged sighting survives a loss of power.
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("apiban_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
