"""What the doctor says of stores and lists, good and broken."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path

import pytest
from apiban.address import parse_network
from apiban.doctor.store import check_list, check_store, check_store_clock
from apiban.settings import Mode
from apiban.snapshot.file import write_snapshot
from apiban.snapshot.format import encode_snapshot
from apiban.store import LOCAL, Store

NOW = 1_800_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Give the path of a store with one ban."""
    path = tmp_path / "store.db"
    with Store(path) as opened:
        opened.ban([parse_network("192.0.2.1")], source=LOCAL, reason="", expires=NOW + 60, now=NOW)
    return path


def test_good_store(store: Path) -> None:
    """It is whole, its entries are counted, and its clock is ours."""
    found = list(check_store(store, now=NOW))
    assert [one.level for one in found] == ["ok", "ok"]
    assert "entries: 1" in found[0].what


def test_no_store(tmp_path: Path) -> None:
    """Before the first start there is none, and none is made."""
    (finding,) = check_store(tmp_path / "store.db", now=NOW)
    assert finding.level == "warn"
    assert list(tmp_path.iterdir()) == []


def test_damaged_store(store: Path) -> None:
    """Pages that are not what they were fail, with the way out."""
    content = bytearray(store.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    store.write_bytes(content)
    found = list(check_store(store, now=NOW))
    assert found[-1].level == "fail"
    assert "move store.db" in found[-1].mend


def test_page_that_nothing_reads(store: Path) -> None:
    """Damage in an index, which no look at the tables meets, is found all the same."""
    db = sqlite3.connect(store)
    (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name LIKE '%expiry'").fetchone()
    (size,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    content = bytearray(store.read_bytes())
    content[(page - 1) * size + 3] = 0xFF  # how many cells it has
    store.write_bytes(content)
    (finding,) = check_store(store, now=NOW)
    assert finding.level == "fail"
    assert "damaged" in finding.what


def test_look_changes_nothing(store: Path, tmp_path: Path) -> None:
    """What stands in the log of a store is left there: a writer may come back for it."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with Store(store) as opened:
        opened.set_mode(None, now=NOW)
        for path in tmp_path.glob("store.db*"):
            (copy / path.name).write_bytes(path.read_bytes())
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert len(before["store.db-wal"]) > 0
    assert [one.level for one in check_store(copy / "store.db", now=NOW)] == ["ok", "ok"]
    for name in ("store.db", "store.db-wal"):
        assert (copy / name).read_bytes() == before[name]


def test_file_that_is_no_store(tmp_path: Path) -> None:
    """Any bytes are one line."""
    path = tmp_path / "store.db"
    path.write_bytes(b"\0\xff" * 4096)
    (finding,) = check_store(path, now=NOW)
    assert finding.level == "fail"
    assert "\n" not in finding.what


def test_store_that_somebody_keeps(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that lets nobody else in is to be found, and the store is not to be moved."""
    monkeypatch.setattr("apiban.doctor.store._BUSY", 0.05)
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("BEGIN IMMEDIATE")
        (finding,) = check_store(store, now=NOW)
    assert finding.level == "fail"
    assert "locked" in finding.what
    assert "fuser" in finding.mend


def test_store_on_a_full_disk(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may well be whole, and is not to be moved away."""

    def fail(*_: object, **__: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sqlite3, "connect", fail)
    (finding,) = check_store(store, now=NOW)
    assert finding.level == "fail"
    assert "see room" in finding.mend


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a while")
def test_store_of_others(store: Path) -> None:
    """A user who is not in the group is told how to get into it."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        folder.chmod(0o755)
        copy = folder / "store.db"
        copy.write_bytes(store.read_bytes())
        copy.chmod(0o660)
        os.seteuid(65534)
        try:
            (finding,) = check_store(copy, now=NOW)
        finally:
            os.seteuid(0)
    assert finding.level == "fail"
    assert "usermod -aG kamailio" in finding.mend


def test_store_of_a_newer_version(store: Path) -> None:
    """What a newer package wrote is not touched."""
    with sqlite3.connect(store) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    (finding,) = check_store(store, now=NOW)
    assert finding.level == "fail"
    assert "newer" in finding.what


@pytest.mark.parametrize(
    ("latest", "level"), [(None, "note"), (NOW, "ok"), (NOW + 59, "ok"), (NOW + 61, "fail")]
)
def test_change_in_the_future(latest: float | None, level: str) -> None:
    """A change that lies ahead means that one of two clocks is wrong."""
    assert check_store_clock(latest, now=NOW).level == level


def write_list(path: Path, created: float) -> None:
    """Write a durable list of one range."""
    content = encode_snapshot(
        generation=4, created=created, mode=Mode.ENFORCE, ipv4=[(1, 2, 3, 1)], ipv6=[]
    )
    write_snapshot(path, content)


@pytest.mark.parametrize(
    ("created", "level"), [(NOW - 5, "ok"), (NOW - 101, "warn"), (NOW + 120, "warn")]
)
def test_age_of_the_list(tmp_path: Path, created: float, level: str) -> None:
    """A list older than its bans, or from the future, is worth a look."""
    write_list(tmp_path / "snapshot", created)
    finding = check_list(tmp_path / "snapshot", now=NOW, lasts=100)
    assert finding.level == level
    assert "generation 4" in finding.what


def test_damaged_list(tmp_path: Path) -> None:
    """A changed byte fails."""
    path = tmp_path / "snapshot"
    write_list(path, NOW)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    finding = check_list(path, now=NOW, lasts=100)
    assert finding.level == "fail"
    assert f"remove {path}" in finding.mend


def test_no_list(tmp_path: Path) -> None:
    """Without one, a restart lets everything through until the first sync."""
    assert check_list(tmp_path / "snapshot", now=NOW, lasts=100).level == "warn"
