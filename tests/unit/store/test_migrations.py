import sqlite3
from pathlib import Path

import pytest
from apiban.address import parse_network
from apiban.errors import StoreError
from apiban.store import FEED_SOURCE, OPERATOR, Allowed, Store
from apiban.store.migrations import MIGRATIONS

NOW = 1_800_000_000.0


def _version_1(path: Path) -> None:
    """Make a store as the first version did, with an entry and two allowed networks in it."""
    old = sqlite3.connect(path)
    old.executescript(MIGRATIONS[0][1])
    old.execute("PRAGMA user_version=1")
    first = bytes([192, 0, 2, 1])
    old.execute(
        "INSERT INTO entry VALUES (4, ?, ?, 'apiban', '', 1.0, 2.0, 3.0, 4)", (first, first)
    )
    old.execute("INSERT INTO allow VALUES (4, ?, ?, 'ours', 5.0, NULL)", (first, first))
    six = parse_network("2001:db8::/32")
    old.execute(
        "INSERT INTO allow VALUES (6, ?, ?, '', 6.0, 7.0)",
        (six.first.to_bytes(16, "big"), six.last.to_bytes(16, "big")),
    )
    old.execute("INSERT INTO state VALUES ('mode', 'shadow')")
    old.commit()
    old.close()


def _version(path: Path) -> int:
    other = sqlite3.connect(path)
    (version,) = other.execute("PRAGMA user_version").fetchone()
    other.close()
    return int(version)


def test_store_of_the_first_version_goes_on(tmp_path: Path) -> None:
    """Entries and states are as they were; what was allowed is now the operator's."""
    path = tmp_path / "store.db"
    _version_1(path)
    with Store(path) as store:
        (entry,) = store.find(parse_network("192.0.2.1"))
        assert (entry.source, entry.first_listed, entry.expires) == (FEED_SOURCE, 1.0, 3.0)
        assert store.allow_list() == [
            Allowed(parse_network("192.0.2.1"), OPERATOR, "ours", 5.0),
            Allowed(parse_network("2001:db8::/32"), OPERATOR, "", 6.0, 7.0),
        ]
        assert store.state("mode") == "shadow"
        assert store.mode(NOW) is None
        assert store.open_tasks() == []
    assert _version(path) == len(MIGRATIONS)


@pytest.mark.parametrize("cut", ["DROP TABLE allow;", "ALTER TABLE"])
def test_step_that_breaks_off_leaves_the_store_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """Nothing is lost of the allow list, and the next start does the whole step."""
    path = tmp_path / "store.db"
    _version_1(path)
    name, script = MIGRATIONS[1]
    broken = script.replace(cut, f"{cut if cut.endswith(';') else ''} SELECT no_such();", 1)
    assert broken != script
    monkeypatch.setattr("apiban.store.migrations.MIGRATIONS", (MIGRATIONS[0], (name, broken)))
    with pytest.raises(StoreError):
        Store(path)
    monkeypatch.undo()
    assert _version(path) == 1
    with Store(path) as store:
        assert len(store.allow_list()) == 2
