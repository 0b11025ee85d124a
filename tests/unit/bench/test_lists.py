"""The lists that the benchmark makes."""

from __future__ import annotations

import ipaddress
import itertools
from pathlib import Path

from apiban.bench.lists import FLOODING, LONGEST, Listing, address, addresses, unlisted
from apiban.snapshot import load_snapshot
from apiban.snapshot.publish import durable_path
from apiban.store import FEED_SOURCE


def test_each_number_has_a_public_address_of_its_own() -> None:
    """Over a million numbers no address comes twice; all may be listed by a feed."""
    step = range(0, LONGEST, 7)
    found = {address(number) for number in step}
    assert len(found) == len(step)
    assert all(ipaddress.ip_address(one).is_global for one in itertools.islice(found, 5000))


def test_no_two_are_neighbours_and_the_one_before_is_on_no_list() -> None:
    """The last octets are odd, and those of unlisted addresses even: nothing is merged."""
    assert {int(one.rpartition(".")[2]) % 2 for one in addresses(0, 5000)} == {1}
    assert {int(unlisted(number).rpartition(".")[2]) % 2 for number in range(5000)} == {0}


def test_the_formula_stays_within_the_bits_that_kamailio_reckons_in() -> None:
    """Its factors times the largest low part are below 2 to the power of 31."""
    assert ((1 << 15) - 1) * 24593 < 1 << 31


def test_a_listing_is_published_whole_and_copied(tmp_path: Path) -> None:
    """The snapshot has every address and the flood's sources; a node's copy too."""
    listing = Listing.make(tmp_path / "list", 1000, '[feed]\nurl = "http://127.0.0.1:9/api/"')
    listing.publish()
    listing.publish()
    listing.copy_to(tmp_path / "node")
    snapshot = load_snapshot(durable_path(tmp_path / "node" / "state"))
    assert all(snapshot.expires(one) for one in (*addresses(0, 1000), *FLOODING))
    assert not any(snapshot.expires(unlisted(number)) for number in range(1000))
    assert snapshot.generation == listing.generation == 2


def test_the_sync_of_a_listing_stands_at_the_end_of_its_feed(tmp_path: Path) -> None:
    """A node that starts with it has a cursor, and no pass is due: its entries stay."""
    listing = Listing.make(tmp_path / "list", 10, '[feed]\nurl = "http://127.0.0.1:9/api/"')
    with listing.open() as store:
        state = store.feed(FEED_SOURCE, listing.settings.feed.identity)
    assert state.cursor == "100"
    assert state.pass_ended is not None
