from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from apiban.address import Network, parse_network
from apiban.store import DETECTOR, FEED_SOURCE, LOCAL, Entry, FeedState, Filter, Store
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = 1_800_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give an empty store."""
    with Store(tmp_path / "store.db") as made:
        yield made


def _networks(*texts: str) -> list[Network]:
    return [parse_network(text) for text in texts]


def _ban(store: Store, *texts: str, source: str = LOCAL, reason: str = "", end: float = 10) -> int:
    return store.ban(_networks(*texts), source=source, reason=reason, expires=NOW + end, now=NOW)


def _feed(store: Store, *texts: str) -> None:
    store.record_page(
        FEED_SOURCE, _networks(*texts), listed=NOW, expires=NOW + 50, state=FeedState("x")
    )


def _texts(entries: list[Entry]) -> list[str]:
    return [str(entry.network) for entry in entries]


# Ban and unban ---------------------------------------------------------------------------------


def test_ban_is_an_entry_with_its_reason_and_end(store: Store) -> None:
    """Hosts and blocks of both families; each is counted and noted once."""
    assert _ban(store, "192.0.2.1", "2001:db8::/32", "192.0.2.1", reason="rude") == 2
    network = parse_network("2001:db8::/32")
    assert store.find(network) == [Entry(network, LOCAL, "rude", NOW, NOW, NOW + 10)]
    assert [row[1:] for row in store.journal()] == [
        ("banned", LOCAL, "2001:db8::/32 (rude)"),
        ("banned", LOCAL, "192.0.2.1 (rude)"),
    ]


def test_last_word_on_a_ban_counts(store: Store) -> None:
    """Time and reason are set anew, to a shorter end too; the first listing stays."""
    _ban(store, "192.0.2.1", reason="a", end=100)
    again = store.ban(
        _networks("192.0.2.1"), source=LOCAL, reason="b", expires=NOW + 9, now=NOW + 5
    )
    assert again == 0
    (entry,) = store.find(parse_network("192.0.2.1"))
    assert (entry.reason, entry.first_listed, entry.last_listed) == ("b", NOW, NOW + 5)
    assert entry.expires == NOW + 9


def test_ban_by_hand_is_no_business_of_the_feeds_pass(store: Store) -> None:
    """What the feed does not list goes; an entry of another source is not the feed's to end."""
    _feed(store, "192.0.2.1")
    _ban(store, "192.0.2.1", "192.0.2.2")
    assert store.remove_unseen(FEED_SOURCE, state=FeedState("x", pass_number=1), now=NOW) == 1
    assert store.count_by_source() == {LOCAL: 2}


def test_unban_takes_only_the_sources_named(store: Store) -> None:
    """The feed's entry stays when the operator takes back a ban by hand."""
    _feed(store, "192.0.2.1")
    _ban(store, "192.0.2.1", "192.0.2.2")
    _ban(store, "192.0.2.1", source=DETECTOR)
    gone = store.unban(
        _networks("192.0.2.1", "192.0.2.1", "192.0.2.0/24"), sources=(LOCAL, DETECTOR), now=NOW
    )
    assert gone == 2
    assert store.count_by_source() == {FEED_SOURCE: 1, LOCAL: 1}
    assert [row[1:] for row in store.journal(2)] == [
        ("unbanned", DETECTOR, "192.0.2.1"),
        ("unbanned", LOCAL, "192.0.2.1"),
    ]


def test_networks_from_a_slow_pipe_keep_nobody_waiting(store: Store, tmp_path: Path) -> None:
    """All of them are read before the transaction begins: another process may write meanwhile."""

    def slow() -> Iterator[Network]:
        yield parse_network("192.0.2.1")
        with Store(tmp_path / "store.db") as other:
            other._db.execute("PRAGMA busy_timeout=0")
            _ban(other, "192.0.2.2")
            other.allow(_networks("192.0.2.3"), reason="", now=NOW)
        yield parse_network("192.0.2.4")

    assert store.ban(slow(), source=LOCAL, reason="", expires=NOW + 1, now=NOW) == 2
    assert store.unban(slow(), sources=(LOCAL,), now=NOW) == 2
    store.allow(slow(), reason="", now=NOW)
    assert store.unallow(slow(), now=NOW) == _networks("192.0.2.1", "192.0.2.4")


def test_ended_bans_go_but_for_the_feeds(store: Store) -> None:
    """At its end a ban goes; when the feed's go is for the sync to say."""
    _feed(store, "192.0.2.9")
    _ban(store, "192.0.2.1", end=10)
    _ban(store, "192.0.2.2", source=DETECTOR, end=11)
    _ban(store, "192.0.2.3", source="another", end=10)
    assert store.remove_ended(feed=FEED_SOURCE, now=NOW + 9.5) == 0
    assert store.remove_ended(feed=FEED_SOURCE, now=NOW + 10) == 2
    assert store.count_by_source() == {FEED_SOURCE: 1, DETECTOR: 1}
    assert {row[2] for row in store.journal(2)} == {LOCAL, "another"}
    assert store.remove_ended(feed=FEED_SOURCE, now=NOW + 1000) == 1
    assert store.count_by_source() == {FEED_SOURCE: 1}


def test_nothing_to_end_takes_no_lock(store: Store, tmp_path: Path) -> None:
    """The look each minute does not wait for a command line that is just writing."""
    _ban(store, "192.0.2.1", end=10)
    store._db.execute("PRAGMA busy_timeout=0")
    with Store(tmp_path / "store.db") as other, other._transaction():
        assert store.remove_ended(feed=FEED_SOURCE, now=NOW) == 0
        assert store.remove_ended_allowed(NOW) == 0


# Overlaps --------------------------------------------------------------------------------------


def _block(family: int, bits: int, prefix: int) -> Network:
    width = 32 if family == 4 else 128
    size = 1 << (width - prefix)
    base = 0xC0000200 if family == 4 else 0x20010DB8 << 96
    first = (base | bits) & -size
    return Network(4 if family == 4 else 6, first, first + size - 1)


# Few addresses, so that blocks lie in, around and beside one another all the time.
_blocks = st.one_of(
    st.builds(_block, st.just(4), st.integers(0, 15), st.integers(26, 32)),
    st.builds(_block, st.just(4), st.integers(0, 15), st.sampled_from([0, 1, 8, 24])),
    st.builds(_block, st.just(6), st.integers(0, 15), st.integers(122, 128)),
    st.builds(_block, st.just(6), st.integers(0, 15), st.sampled_from([0, 1, 32, 64])),
)


@settings(max_examples=150, deadline=None)
@given(listed=st.lists(_blocks, max_size=12), asked=_blocks)
def test_overlaps_are_those_that_a_plain_look_finds(listed: list[Network], asked: Network) -> None:
    """Each once, widest first; of the allow list as of the entries."""
    with TemporaryDirectory() as folder, Store(Path(folder) / "store.db") as store:
        store._db.execute("PRAGMA synchronous=OFF")
        store.ban(listed, source=LOCAL, reason="", expires=NOW, now=NOW)
        store.allow(listed, reason="", now=NOW)
        naive = sorted(
            {one for one in listed if one.overlaps(asked)},
            key=lambda one: (
                one.prefix if one.prefix < asked.prefix else 999,
                one.first,
                -one.last,
            ),
        )
        assert [entry.network for entry in store.touching(asked)] == naive
        assert [entry.network for entry in store.allowing(asked)] == naive


# Pages -----------------------------------------------------------------------------------------


def _all(store: Store, wanted: Filter, limit: int) -> list[Entry]:
    found: list[Entry] = []
    while True:
        after = (found[-1].network, found[-1].source) if found else None
        page = store.page(wanted, after=after, limit=limit)
        assert len(page) <= limit
        if not page:
            return found
        found += page


@pytest.fixture
def mixed(store: Store) -> Store:
    """Give a store with entries of three sources and both families."""
    _feed(store, "9.0.0.0/24", "192.0.2.1", "192.0.2.2", "2001:db8::1")
    _ban(store, "192.0.2.1", "192.0.2.0/24", "::2", reason="sent 5 calls", end=100)
    _ban(store, "203.0.113.7", source=DETECTOR, reason="scans users", end=5)
    return store


_ORDER = ["9.0.0.0/24", "192.0.2.1", "192.0.2.1", "192.0.2.0/24", "192.0.2.2", "203.0.113.7"]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_give_all_in_the_order_of_addresses(mixed: Store, limit: int) -> None:
    """However long a page is, each entry comes once: first, last, then source."""
    found = _all(mixed, Filter(), limit)
    keys = [(e.network.family, e.network.first, e.network.last, e.source) for e in found]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys) == 8
    assert sorted(_texts(found)) == sorted([*_ORDER, "::2", "2001:db8::1"])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(source=LOCAL), ["192.0.2.0/24", "192.0.2.1", "::2"]),
        (Filter(source="nobody"), []),
        (Filter(family=6), ["2001:db8::1", "::2"]),
        (Filter(within=parse_network("192.0.2.1")), ["192.0.2.0/24", "192.0.2.1", "192.0.2.1"]),
        (Filter(within=parse_network("::/0")), ["2001:db8::1", "::2"]),
        (Filter(reason="call"), ["192.0.2.0/24", "192.0.2.1", "::2"]),
        (Filter(reason="%"), []),
        (Filter(expires_before=NOW + 50), ["203.0.113.7"]),
        (Filter(source=LOCAL, family=4, reason="5"), ["192.0.2.0/24", "192.0.2.1"]),
        (
            Filter(source=FEED_SOURCE, within=parse_network("192.0.0.0/16")),
            ["192.0.2.1", "192.0.2.2"],
        ),
    ],
    ids=str,
)
def test_filters(mixed: Store, wanted: Filter, expected: list[str]) -> None:
    """Each alone and together, page by page and at once."""
    assert sorted(_texts(_all(mixed, wanted, 1))) == expected
    assert sorted(_texts(_all(mixed, wanted, 100))) == expected


def test_list_that_changes_between_pages_is_gone_through_once(mixed: Store) -> None:
    """What was given may go; what comes behind is met, what comes before is not."""
    first = mixed.page(Filter(), limit=3)
    mixed.unban([first[-1].network], sources=(first[-1].source,), now=NOW)
    _ban(mixed, "1.2.3.4", "198.51.100.1")
    rest = _all_after(mixed, first[-1])
    assert "1.2.3.4" not in _texts(rest)
    assert "198.51.100.1" in _texts(rest)
    assert len(rest) == 8 - 3 + 1


def _all_after(store: Store, last: Entry) -> list[Entry]:
    found = store.page(Filter(), after=(last.network, last.source), limit=100)
    assert len(found) < 100
    return found


@pytest.mark.parametrize(
    "wanted",
    [Filter(), Filter(source="a"), Filter(family=4), Filter(expires_before=1.0)],
    ids=["all", "source", "family", "end"],
)
def test_page_of_a_long_list_is_found_not_sorted(store: Store, wanted: Filter) -> None:
    """A million entries are read on from where the last page ended, whatever is asked for."""
    said: list[str] = []
    store._db.set_trace_callback(said.append)
    store.page(wanted, after=(parse_network("192.0.2.1"), "a"))
    store._db.set_trace_callback(None)
    (query,) = said
    plan = [row[3] for row in store._db.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert plan == ["SEARCH entry USING PRIMARY KEY ((family,first,last,source)>(?,?,?,?))"]
