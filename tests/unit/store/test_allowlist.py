from collections.abc import Iterator
from pathlib import Path

import pytest
from apiban.address import Network, parse_network
from apiban.store import OPERATOR, UNBAN, Allowed, Store

NOW = 1_800_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give an empty store."""
    with Store(tmp_path / "store.db") as made:
        yield made


def _networks(*texts: str) -> list[Network]:
    return [parse_network(text) for text in texts]


def test_allow_list_holds_until_the_end_given(store: Store) -> None:
    """An entry without an end stays; one with an end is in force while now is before it."""
    store.allow(_networks("192.0.2.1"), reason="ours", now=NOW)
    store.allow(_networks("2001:db8::/32"), reason="a while", now=NOW, expires=NOW + 10)
    assert set(store.allowed(NOW)) == set(_networks("192.0.2.1", "2001:db8::/32"))
    assert store.allowed(NOW + 10) == _networks("192.0.2.1")
    assert store.next_allow_end(NOW) == NOW + 10
    assert store.next_allow_end(NOW + 10) is None


def test_allowing_again_replaces_the_end(store: Store) -> None:
    """The last word counts."""
    store.allow(_networks("192.0.2.1"), reason="x", now=NOW)
    store.allow(_networks("192.0.2.1"), reason="y", now=NOW, expires=NOW + 1)
    assert store.allowed(NOW + 1) == []


def test_unallow_tells_what_was_there(store: Store) -> None:
    """Taking off what is not there changes nothing, and says so."""
    store.allow(_networks("192.0.2.1"), reason="x", now=NOW)
    assert store.unallow(_networks("192.0.2.0/24"), now=NOW) == []
    gone = store.unallow(_networks("192.0.2.0/24", "192.0.2.1"), now=NOW)
    assert gone == _networks("192.0.2.1")
    assert store.unallow(_networks("192.0.2.1"), now=NOW) == []
    assert store.allowed(NOW) == []
    assert [row[1] for row in store.journal()] == ["no longer allowed", "allowed"]


def test_sources_allow_apart(store: Store) -> None:
    """An address that two allow is free until neither does, and is in force once."""
    store.allow(_networks("192.0.2.1"), reason="x", now=NOW)
    store.allow(_networks("192.0.2.1"), reason="", now=NOW + 1, expires=NOW + 9, source=UNBAN)
    address = parse_network("192.0.2.1")
    assert store.allow_list() == [
        Allowed(address, OPERATOR, "x", NOW),
        Allowed(address, UNBAN, "", NOW + 1, NOW + 9),
    ]
    assert store.allowed(NOW) == [address]
    assert store.unallow([address], now=NOW) == [address]
    assert store.allowed(NOW) == [address]
    assert store.unallow([address], now=NOW, source=UNBAN) == [address]
    assert store.allowed(NOW) == []


def test_source_that_says_all_it_allows(store: Store) -> None:
    """What is missing goes, what is new comes, another source's stays; no change is no change."""
    one, two, three = _networks("192.0.2.1", "192.0.2.2", "2001:db8::3")
    store.allow([one], reason="by hand", now=NOW)
    assert store.set_allowed("dispatcher", {one: "set 1", two: "set 1"}, now=NOW)
    number = store.position()
    assert not store.set_allowed("dispatcher", {two: "set 1", one: "set 1"}, now=NOW + 1)
    assert store.position() == number
    assert store.set_allowed("dispatcher", {two: "set 2", three: "set 1"}, now=NOW + 2)
    assert store.allow_list() == [
        Allowed(one, OPERATOR, "by hand", NOW),
        Allowed(two, "dispatcher", "set 2", NOW + 2),
        Allowed(three, "dispatcher", "set 1", NOW + 2),
    ]
    assert store.set_allowed("dispatcher", {}, now=NOW + 3)
    assert store.allowed(NOW) == [one]
    assert [row[1:3] for row in store.journal(2)] == [("no longer allowed", "dispatcher")] * 2


def test_ended_entries_go(store: Store) -> None:
    """At their end; those for good never."""
    store.allow(_networks("192.0.2.1"), reason="x", now=NOW)
    store.allow(_networks("192.0.2.2"), reason="x", now=NOW, expires=NOW + 10, source=UNBAN)
    assert store.remove_ended_allowed(NOW + 9.5) == 0
    assert store.remove_ended_allowed(NOW + 10) == 1
    assert [one.network for one in store.allow_list()] == _networks("192.0.2.1")
    assert store.journal(1) == [(NOW + 10, "no longer allowed", UNBAN, "192.0.2.2")]
