import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from apiban.address import Network, parse_network
from apiban.errors import StoreError, StoreTooNew
from apiban.store import FEED_SOURCE, Entry, FeedState, SentRequest, Store
from apiban.store import file as module
from apiban.store.migrations import MIGRATIONS

NOW = 1_800_000_000.0
WEEK = 7 * 86400.0
STATE = FeedState("list-1", cursor="5")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name the store's file."""
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """Give an empty store."""
    with Store(path) as made:
        yield made


def _networks(*texts: str) -> list[Network]:
    return [parse_network(text) for text in texts]


def _record(
    store: Store, *texts: str, at: float = NOW, state: FeedState = STATE, seen: int | None = None
) -> int:
    return store.record_page(
        FEED_SOURCE,
        _networks(*texts),
        listed=at,
        expires=at + WEEK,
        state=state if seen is None else replace(state, pass_number=seen),
    )


def _listed(store: Store) -> set[str]:
    return {
        str(Network(family, first, last))
        for family in (4, 6)
        for first, last, *_ in store.bans(family, grace_source=FEED_SOURCE, grace=0)
    }


# Opening ---------------------------------------------------------------------------------------


def test_new_store_has_this_versions_schema(store: Store, path: Path) -> None:
    """A file that is not there is made, in WAL mode and with every migration applied."""
    assert store.count(FEED_SOURCE) == 0
    with sqlite3.connect(path) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


def test_reopened_store_has_what_was_recorded(path: Path) -> None:
    """What was stored is there after a restart; no migration is applied twice."""
    with Store(path) as store:
        _record(store, "192.0.2.1")
        store.set_state("mode", "shadow", now=NOW)
    with Store(path) as store:
        assert _listed(store) == {"192.0.2.1"}
        assert store.feed(FEED_SOURCE, "list-1") == STATE
        assert store.state("mode") == "shadow"


def test_interrupted_migration_leaves_no_half_schema(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that fails in its middle is undone as a whole, and done at the next start."""
    broken = (("first", MIGRATIONS[0][1] + "; CREATE TABLE entry (again);"),)
    monkeypatch.setattr("apiban.store.migrations.MIGRATIONS", broken)
    with pytest.raises(StoreError):
        Store(path)
    monkeypatch.undo()
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        assert other.execute("PRAGMA user_version").fetchone() == (0,)
    other.close()
    with Store(path) as store:
        assert _record(store, "192.0.2.1") == 1


def test_later_migration_keeps_the_data(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of this version goes through the steps that a next one adds, and only those."""
    with Store(path) as store:
        _record(store, "192.0.2.1")
    more = (*MIGRATIONS, ("one more step", "CREATE TABLE later (x);"))
    monkeypatch.setattr("apiban.store.migrations.MIGRATIONS", more)
    with Store(path) as store:
        assert _listed(store) == {"192.0.2.1"}
    with sqlite3.connect(path) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert other.execute("SELECT count(*) FROM later").fetchone() == (0,)
    other.close()


def _make_newer(path: Path, *, journal: str) -> None:
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA journal_mode={journal}")
    other.execute("CREATE TABLE entry (something_else)")
    other.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    other.commit()
    other.close()


def test_newer_store_is_refused_on_one_line(path: Path) -> None:
    """A store of a newer version is an error of its own, which says what to do."""
    _make_newer(path, journal="WAL")
    with pytest.raises(StoreTooNew, match="newer package") as caught:
        Store(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "journal",
    [
        "WAL",
        pytest.param(
            "DELETE",
        ),
    ],
)
def test_newer_store_is_left_as_it_is(path: Path, journal: str) -> None:
    """Not a byte of a newer version's file is changed, whatever its journal mode."""
    _make_newer(path, journal=journal)
    before = path.read_bytes()
    with pytest.raises(StoreTooNew):
        Store(path)
    assert path.read_bytes() == before


def test_store_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(StoreError, match=r"gone/store\.db"):
        Store(tmp_path / "gone" / "store.db")


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 5000]
)
def test_file_that_is_no_database_is_refused_on_one_line(path: Path, content: bytes) -> None:
    """Garbage is a StoreError that says which file."""
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        Store(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_pages_are_a_store_error_on_one_line(path: Path) -> None:
    """A file whose pages were overwritten fails as a StoreError, at the start or when read."""
    with Store(path) as store:
        _record(store, *(f"192.0.2.{last}" for last in range(256)))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(StoreError) as caught, Store(path) as store:
        _listed(store)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("whole", "damaged"),
    [
        pytest.param(b"apiban", b"apib\xfan", id="text"),
        pytest.param(b"CREATE TABLE entry", b"CREATE TABL! entry", id="schema"),
        pytest.param(
            b"CREATE TABLE entry",
            b"CREATE T\xfaBLE entry",
            id="schema-not-utf8",
        ),
        pytest.param(
            b"entry_by_expiry",
            b"ent\ny_by_expiry",
            id="line-break",
        ),
    ],
)
def test_flipped_bytes_are_a_store_error_on_one_line(
    path: Path, whole: bytes, damaged: bytes
) -> None:
    """Whatever a bad disk makes of the file, it is the one error that the sync knows."""
    with Store(path) as store:
        _record(store, "192.0.2.1")
    content = path.read_bytes()
    assert whole in content
    path.write_bytes(content.replace(whole, damaged))
    with pytest.raises(StoreError) as caught, Store(path) as store:
        store.find(parse_network("192.0.2.1"))
    assert "\n" not in str(caught.value)


def test_closed_store_fails_as_a_store_error(path: Path) -> None:
    """Even a mistake of ours stays within the error tree."""
    store = Store(path)
    store.close()
    with pytest.raises(StoreError):
        store.count(FEED_SOURCE)


def test_two_connections_take_turns(store: Store, path: Path) -> None:
    """Another connection reads while this one is open, and writes when it is idle."""
    _record(store, "192.0.2.1")
    with Store(path) as other:
        assert _listed(other) == {"192.0.2.1"}
        other.allow(_networks("192.0.2.1"), reason="x", now=NOW)
    assert store.allowed(NOW) == _networks("192.0.2.1")


def test_locked_store_fails_as_a_store_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that never ends costs an error, not a wait without end."""
    monkeypatch.setattr(module, "_BUSY_SECONDS", 0.0)
    with Store(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            _record(store, "192.0.2.1")
        other.execute("ROLLBACK")
        other.close()
        assert _record(store, "192.0.2.1") == 1


# Entries ---------------------------------------------------------------------------------------


def test_page_is_recorded_with_its_cursor(store: Store) -> None:
    """Hosts and blocks of both families come back, with the feed's state."""
    assert _record(store, "192.0.2.1", "198.51.100.0/24", "2001:db8::/48", "::2") == 4
    assert _listed(store) == {"192.0.2.1", "198.51.100.0/24", "2001:db8::/48", "::2"}
    assert store.feed(FEED_SOURCE, "list-1") == STATE
    assert store.count(FEED_SOURCE) == 4
    assert store.count("local") == 0


def test_network_twice_in_a_page_is_one_entry(store: Store) -> None:
    """A page that repeats itself counts each network once."""
    assert _record(store, "192.0.2.1", "192.0.2.1") == 1
    assert store.count(FEED_SOURCE) == 1


def test_renewal_keeps_the_first_listing(store: Store) -> None:
    """Listing again moves the last listing and the end; it is no new entry."""
    _record(store, "192.0.2.1")
    assert _record(store, "192.0.2.1", "192.0.2.2", at=NOW + 60) == 1
    address = parse_network("192.0.2.1")
    assert store.find(address) == [Entry(address, FEED_SOURCE, "", NOW, NOW + 60, NOW + 60 + WEEK)]


def test_ban_is_counted_from_the_last_listing(store: Store) -> None:
    """A listing that came with a clock in the future does not make a ban of years."""
    _record(store, "192.0.2.1")
    _record(store, "192.0.2.1", at=NOW - 1000)
    (entry,) = store.find(parse_network("192.0.2.1"))
    assert entry.expires == NOW - 1000 + WEEK


def test_sources_are_kept_apart(store: Store) -> None:
    """The same address from two sources is two entries; one's removal leaves the other."""
    _record(store, "192.0.2.1")
    store.record_page(
        "local",
        _networks("192.0.2.1"),
        listed=NOW,
        expires=NOW + 1,
        state=FeedState("none"),
    )
    assert len(store.find(parse_network("192.0.2.1"))) == 2
    assert store.remove_expired("local", until=NOW + 1, now=NOW + 1) == 1
    assert [entry.source for entry in store.find(parse_network("192.0.2.1"))] == [FEED_SOURCE]


def test_find_wants_just_this_network(store: Store) -> None:
    """A block around an address is another entry."""
    _record(store, "192.0.2.0/24")
    assert store.find(parse_network("192.0.2.1")) == []
    assert len(store.find(parse_network("192.0.2.0/24"))) == 1


def test_bans_come_sorted_with_the_grace_of_one_source(store: Store) -> None:
    """The compiler relies on the order; only the feed's own entries get more time."""
    _record(store, "203.0.113.1", "9.0.0.0/24", "2001:db8::2", "::9")
    store.record_page(
        "local",
        _networks("128.0.0.1"),
        listed=NOW,
        expires=NOW + 5,
        state=FeedState("none"),
    )
    rows = list(store.bans(4, grace_source=FEED_SOURCE, grace=100.0))
    assert rows == [
        (0x09000000, 0x090000FF, NOW + WEEK + 100, FEED_SOURCE),
        (0x80000001, 0x80000001, NOW + 5, "local"),
        (0xCB007101, 0xCB007101, NOW + WEEK + 100, FEED_SOURCE),
    ]
    six = [first for first, *_ in store.bans(6, grace_source="", grace=0)]
    assert six == [9, 0x20010DB8 << 96 | 2]


def test_expired_entries_are_removed_and_counted(store: Store) -> None:
    """An entry is alive while now is before its end; at its end it goes."""
    _record(store, "192.0.2.1")
    _record(store, "192.0.2.2", at=NOW + 1)
    assert store.next_expiry(FEED_SOURCE) == NOW + WEEK
    assert store.count_expired(FEED_SOURCE, NOW + WEEK - 0.5) == 0
    assert store.count_expired(FEED_SOURCE, NOW + WEEK) == 1
    assert store.remove_expired(FEED_SOURCE, until=NOW + WEEK - 0.5, now=NOW) == 0
    assert store.remove_expired(FEED_SOURCE, until=NOW + WEEK, now=NOW) == 1
    assert _listed(store) == {"192.0.2.2"}
    assert store.next_expiry("local") is None


def test_complete_pass_removes_what_it_did_not_list(store: Store) -> None:
    """What was not listed since the pass began, by either walk, goes."""
    _record(store, "192.0.2.1", "192.0.2.2", "192.0.2.3", seen=1)
    _record(store, "192.0.2.2", at=NOW + 10, seen=2)
    _record(store, "192.0.2.3", at=NOW - 10, seen=2)  # the wall clock has no say in it
    state = replace(STATE, pass_number=2)
    assert store.count_unseen(FEED_SOURCE, pass_number=2) == 1
    assert store.remove_unseen(FEED_SOURCE, state=state, now=NOW + 20) == 1
    assert _listed(store) == {"192.0.2.2", "192.0.2.3"}
    assert store.feed(FEED_SOURCE, "list-1") == state


def test_new_networks_are_counted_once(store: Store) -> None:
    """A page's new networks are known before it is taken."""
    _record(store, "192.0.2.1")
    page = _networks("192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.0/24")
    assert store.count_new(FEED_SOURCE, page) == 2
    assert store.count_new("local", page) == 3


# Atomicity -------------------------------------------------------------------------------------


class _Cut(Exception):
    """What a test throws into the middle of a transaction."""


def test_page_that_fails_before_its_cursor_leaves_nothing(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries without their cursor, or a cursor without its entries, never exist."""
    _record(store, "192.0.2.1")

    def fail(*_: object) -> None:
        raise _Cut

    monkeypatch.setattr(store, "_write_feed", fail)
    later = replace(STATE, cursor="6")
    with pytest.raises(_Cut):
        _record(store, "192.0.2.1", "192.0.2.2", at=NOW + 60, state=later)
    monkeypatch.undo()
    with Store(path) as other:
        assert _listed(other) == {"192.0.2.1"}
        assert other.find(parse_network("192.0.2.1"))[0].last_listed == NOW
        assert other.feed(FEED_SOURCE, "list-1") == STATE
        assert len(other.journal()) == 1
    assert _record(store, "192.0.2.2", state=later) == 1


_TRIGGERS = {
    "entry": "BEFORE INSERT ON entry WHEN NEW.first = x'C0000202'",
    "journal": "BEFORE INSERT ON journal WHEN NEW.what = '192.0.2.2'",
    "feed": "BEFORE INSERT ON feed WHEN NEW.cursor = '6'",
}


@pytest.mark.parametrize("table", sorted(_TRIGGERS))
def test_page_that_the_database_refuses_leaves_nothing(
    store: Store, path: Path, table: str
) -> None:
    """Whichever statement fails, the page is not there and the store goes on."""
    _record(store, "192.0.2.1")
    other = sqlite3.connect(path)
    other.execute(f"CREATE TRIGGER cut {_TRIGGERS[table]} BEGIN SELECT RAISE(ABORT, 'cut'); END")
    other.commit()
    with pytest.raises(StoreError, match="cut"):
        _record(store, "192.0.2.3", "192.0.2.2", state=replace(STATE, cursor="6"))
    other.execute("DROP TRIGGER cut")
    other.commit()
    other.close()
    assert _listed(store) == {"192.0.2.1"}
    assert store.feed(FEED_SOURCE, "list-1") == STATE
    assert _record(store, "192.0.2.2") == 1


def test_pass_end_that_fails_removes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The removal and the pass's end are one step."""
    _record(store, "192.0.2.1")

    def fail(*_: object) -> None:
        raise _Cut

    monkeypatch.setattr(store, "_write_feed", fail)
    with pytest.raises(_Cut):
        store.remove_unseen(FEED_SOURCE, state=replace(STATE, pass_number=2), now=NOW + 1)
    assert _listed(store) == {"192.0.2.1"}
    assert store.feed(FEED_SOURCE, "list-1") == STATE


def test_full_disk_leaves_the_state_before(store: Store) -> None:
    """A page that does not fit is refused whole; when there is room again it is taken."""
    _record(store, "192.0.2.1")
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count={pages}")
    many = [f"198.{first}.{second}.0/24" for first in (51, 52) for second in range(256)]
    with pytest.raises(StoreError, match="full"):
        _record(store, *many, state=replace(STATE, cursor="6"))
    assert _listed(store) == {"192.0.2.1"}
    assert store.feed(FEED_SOURCE, "list-1") == STATE
    store._db.execute("PRAGMA max_page_count=1000000")
    assert _record(store, *many) == len(many)


# Feeds -----------------------------------------------------------------------------------------


def test_every_field_of_a_feeds_state_comes_back(store: Store) -> None:
    """None of them is lost or swapped."""
    assert store.feed("apiban", "list-1") == FeedState("list-1")
    state = FeedState("list-1", "7", 1.5, 3, "9", 2.5, 4.5, 2)
    store.save_feed("apiban", state)
    assert store.feed("apiban", "list-1") == state
    assert store.feed("other", "list-1") == FeedState("list-1")


def test_another_identity_starts_anew_and_counts_its_passes_on(store: Store) -> None:
    """Another list's cursor means nothing; the old list's entries count as unseen."""
    store.save_feed("apiban", FeedState("list-1", "7", 1.5, 3, "9", 2.5, 4.5, 2))
    assert store.feed("apiban", "list-2") == FeedState("list-2", pass_number=3)


# Requests --------------------------------------------------------------------------------------


def test_requests_are_noted_settled_and_forgotten(store: Store) -> None:
    """Those of an earlier boot go as well as those that ended before."""
    store.add_request("apiban", SentRequest("boot-0", 900.0))
    first = store.add_request("apiban", SentRequest("boot-1", 100.0))
    second = store.add_request("apiban", SentRequest("boot-1", 200.0))
    store.add_request("other", SentRequest("boot-0", 1.0))
    assert first is not None
    assert second is not None
    assert first != second
    store.settle_request(second, 150.0)
    assert store.requests("apiban") == [
        SentRequest("boot-0", 900.0),
        SentRequest("boot-1", 100.0),
        SentRequest("boot-1", 150.0),
    ]
    store.forget_requests("apiban", boot="boot-1", before=150.0)
    assert store.requests("apiban") == [SentRequest("boot-1", 150.0)]
    assert len(store.requests("other")) == 1


def test_settling_a_forgotten_request_is_harmless(store: Store) -> None:
    """An answer may come after its request was forgotten."""
    number = store.add_request("apiban", SentRequest("boot-1", 1.0))
    assert number is not None
    store.forget_requests("apiban", boot="boot-1", before=2.0)
    store.settle_request(number, 3.0)
    assert store.requests("apiban") == []


# State and journal -----------------------------------------------------------------------------


def test_named_values_are_saved_and_noted(store: Store) -> None:
    """A change of mode is in the journal."""
    assert store.state("mode") is None
    store.set_state("mode", "shadow", now=NOW)
    store.set_state("mode", "off", now=NOW + 1)
    assert store.state("mode") == "off"
    assert store.journal(1) == [(NOW + 1, "mode", "settings", "off")]


def test_journal_tells_what_came_and_went(store: Store) -> None:
    """Newest first, with the source and the network; a renewal is no change."""
    _record(store, "192.0.2.1", "192.0.2.0/24")
    _record(store, "192.0.2.1", at=NOW + 1, seen=2)
    store.remove_unseen(FEED_SOURCE, state=replace(STATE, pass_number=2), now=NOW + 2)
    store.remove_expired(FEED_SOURCE, until=NOW + 2 * WEEK, now=NOW + 3)
    assert store.journal() == [
        (NOW + 3, "expired", FEED_SOURCE, "192.0.2.1"),
        (NOW + 2, "no longer listed", FEED_SOURCE, "192.0.2.0/24"),
        (NOW, "listed", FEED_SOURCE, "192.0.2.0/24"),
        (NOW, "listed", FEED_SOURCE, "192.0.2.1"),
    ]
    assert len(store.journal(2)) == 2


def test_journal_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest rows go; at most a thousand more than the limit are there at any time."""
    monkeypatch.setattr(module, "_JOURNAL_ROWS", 500)
    for block in range(5):
        _record(store, *(f"10.{block}.{row // 256}.{row % 256}" for row in range(700)))
    rows = store.journal(10_000)
    assert 500 <= len(rows) <= 1500
    assert rows[0][3] == "10.4.2.187"
