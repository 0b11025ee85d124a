import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiban.settings import Mode
from apiban.store import ModeOverride, Store, Task, overriding_mode

NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name the store's file."""
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """Give an empty store."""
    with Store(path) as made:
        yield made


# The operator's mode ---------------------------------------------------------------------------


def test_mode_goes_before_the_settings_until_it_is_taken_back(store: Store) -> None:
    """The last one set counts; None gives the word back to the settings."""
    assert store.mode(NOW) is None
    store.set_mode(Mode.SHADOW, now=NOW)
    store.set_mode(Mode.OFF, now=NOW + 1)
    assert store.mode(NOW + 1e9) == ModeOverride(Mode.OFF, NOW + 1)
    store.set_mode(None, now=NOW + 2)
    assert store.mode(NOW + 2) is None
    assert [row[3] for row in store.journal()] == ["as in the settings", "off", "shadow"]


def test_mode_ends_in_time(store: Store, path: Path) -> None:
    """It is in force while now is before its end, for who writes the store and who only looks."""
    store.set_mode(Mode.OFF, now=NOW, expires=NOW + 10)
    expected = ModeOverride(Mode.OFF, NOW, NOW + 10)
    for now, mode in ((NOW + 9.5, expected), (NOW + 10, None)):
        assert store.mode(now) == mode
        assert overriding_mode(path, now, Mode.ENFORCE) == mode


def test_look_at_the_mode_sees_what_is_only_in_the_log_of_writes(store: Store, path: Path) -> None:
    """A process that was killed leaves its last words in the WAL."""
    store._db.execute("PRAGMA wal_autocheckpoint=0")
    store.set_mode(Mode.OFF, now=NOW)
    assert overriding_mode(path, NOW, Mode.ENFORCE) == ModeOverride(Mode.OFF, NOW)


def test_mode_ends_with_a_change_of_the_settings(store: Store, path: Path) -> None:
    """Who looks knows it before the sync does, and does not begin with what the sync will end."""
    store.set_state("mode", "enforce", now=NOW)
    store.set_mode(Mode.SHADOW, now=NOW)
    assert overriding_mode(path, NOW, Mode.ENFORCE) is not None
    assert overriding_mode(path, NOW, Mode.OFF) is None


def test_mode_set_after_a_change_that_no_sync_noted_counts(store: Store, path: Path) -> None:
    """The settings were edited while nothing ran, and then the operator had the last word."""
    store.set_state("mode", "enforce", now=NOW)
    store.set_mode(Mode.OFF, now=NOW, over=Mode.SHADOW)
    assert overriding_mode(path, NOW, Mode.SHADOW) == ModeOverride(Mode.OFF, NOW)


def test_mode_that_cannot_be_read_is_none(tmp_path: Path, path: Path) -> None:
    """No file, garbage, a store of before this table, and a mode that this version has not."""
    assert overriding_mode(tmp_path / "gone.db", NOW, Mode.ENFORCE) is None
    assert not (tmp_path / "gone.db").exists()
    path.write_bytes(b"garbage" * 1000)
    assert overriding_mode(path, NOW, Mode.ENFORCE) is None
    path.unlink()
    sqlite3.connect(path).close()
    assert overriding_mode(path, NOW, Mode.ENFORCE) is None
    with Store(path) as store:
        store._db.execute("INSERT INTO mode VALUES (1, 'panic', 0, NULL)")
        assert store.mode(NOW) is None
        assert overriding_mode(path, NOW, Mode.ENFORCE) is None


# Tasks -----------------------------------------------------------------------------------------


def test_tasks_are_taken_once_in_their_order(store: Store, path: Path) -> None:
    """Who asked can see that they were taken."""
    first = store.add_task("full-pass", now=NOW)
    second = store.add_task("accept-hold", now=NOW + 1)
    with Store(path) as other:
        assert other.open_tasks() == [
            Task(first, "full-pass", NOW),
            Task(second, "accept-hold", NOW + 1),
        ]
        assert not store.task_taken(first)
        other.take_tasks([first], now=NOW + 2)
    assert store.task_taken(first)
    assert not store.task_taken(second)
    assert [task.number for task in store.open_tasks()] == [second]


def test_taken_tasks_are_forgotten_and_their_numbers_not_used_again(store: Store) -> None:
    """A task that waits stays, however old."""
    first, second = store.add_task("sync", now=NOW), store.add_task("sync", now=NOW)
    store.take_tasks([second], now=NOW)
    store.take_tasks([], now=NOW + 2 * 86400)
    assert [task.number for task in store.open_tasks()] == [first]
    assert store._number("SELECT count(*) FROM task") == 1
    assert store.add_task("sync", now=NOW) > second
