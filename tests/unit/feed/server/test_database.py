from contextlib import suppress
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from apiban.errors import StoreError, StoreTooNew
from apiban.feed.server.database import Database
from apiban.feed.server.database.schema import metadata
from apiban.settings import Secret
from sqlalchemy import text


def test_migrations_make_the_tables(database_url: str) -> None:
    """What the migrations made is what the code works with."""
    with Database(Secret(database_url)) as database, database.read() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    assert found == []


def test_newer_database_is_left_alone(database_url: str) -> None:
    """An older program says so, and changes nothing."""
    with Database(Secret(database_url)) as database, database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreTooNew, match="newer version"):
        Database(Secret(database_url))


def test_write_is_all_or_nothing(database_url: str) -> None:
    """What raises in the middle leaves no trace."""
    insert = text("INSERT INTO note (name, value, at) VALUES ('a', '{}', 0)")

    class Trouble(Exception):
        """What goes wrong."""

    with Database(Secret(database_url)) as database:
        with suppress(Trouble), database.write() as connection:
            connection.execute(insert)
            raise Trouble
        with database.read() as connection:
            assert connection.execute(text("SELECT count(*) FROM note")).scalar_one() == 0


def test_error_is_one_line_without_the_values(database_url: str) -> None:
    """An operator reads what the database said, and no statement."""
    insert = text("INSERT INTO note (name, value, at) VALUES (:name, '{}', 0)")
    with Database(Secret(database_url)) as database:
        with database.write() as connection:
            connection.execute(insert, {"name": "a"})
        with pytest.raises(StoreError) as caught, database.write() as connection:
            connection.execute(insert, {"name": "a"})
    assert "\n" not in str(caught.value)
    assert "INSERT" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////proc/none/feed.db",
        "sqlite:////dev/null/feed.db",
        "postgresql://nobody:pass-word@127.0.0.1:1/none",
    ],
)
def test_no_database(url: str) -> None:
    """The error names no password."""
    with pytest.raises(StoreError) as caught:
        Database(Secret(url))
    assert "pass-word" not in str(caught.value)


def test_damaged_file(tmp_path: Path) -> None:
    """It is an error that says which part is broken, and the file is left as it is."""
    path = tmp_path / "feed.db"
    path.write_bytes(b"no database, though it is as long as one" * 1000)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a database"):
        Database(Secret(f"sqlite:///{path}"))
    assert path.read_bytes() == before
