"""Whether an address is banned, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apiban.address import parse_network
from apiban.settings import Mode, load_settings
from apiban.snapshot.format import FOREVER
from apiban.store import DETECTOR, FEED_SOURCE, LOCAL, UNBAN, FeedState, Store
from apiban.verdict.explain import Verdict, explain

NOW = 1_800_000_000.0
HOUR = 3600.0


class World:
    """A store, and settings in which a feed's entries have an hour of grace."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store.db")
        defaults = load_settings(folder / "none.toml", {})
        self.settings = replace(defaults, feed=replace(defaults.feed, stale_max=HOUR))

    def ban(self, text: str, source: str = LOCAL, *, lasts: float = HOUR, reason: str = "") -> None:
        """Ban a network from now on."""
        self.store.ban(
            [parse_network(text)], source=source, reason=reason, expires=NOW + lasts, now=NOW
        )

    def explain(
        self, text: str, *, after: float = 0.0, mode: Mode = Mode.ENFORCE, **more: Any
    ) -> Verdict:
        """Explain an address, some seconds after now."""
        values = {"settings": self.settings, "own": (), **more}
        return explain(parse_network(text), store=self.store, now=NOW + after, mode=mode, **values)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a world with an empty store."""
    made = World(tmp_path)
    yield made
    made.store.close()


def test_an_address_that_nobody_lists_is_not_banned(world: World) -> None:
    """There is nothing to tell of it."""
    world.ban("198.51.100.8")
    verdict = world.explain("198.51.100.7")
    assert (verdict.listed, verdict.banned, verdict.dropped) == (False, False, False)
    assert verdict.listings == ()
    assert verdict.exemptions == ()


def test_every_range_that_holds_an_address_is_told_widest_first(world: World) -> None:
    """A range, the address itself, and two sources of one network: each is told."""
    world.ban("198.51.100.7", DETECTOR, reason="many users")
    world.ban("198.51.100.7")
    world.ban("198.51.0.0/16", FEED_SOURCE)
    world.ban("198.51.100.8")
    verdict = world.explain("198.51.100.7")
    assert [(str(one.entry.network), one.entry.source) for one in verdict.listings] == [
        ("198.51.0.0/16", FEED_SOURCE),
        ("198.51.100.7", DETECTOR),
        ("198.51.100.7", LOCAL),
    ]
    assert verdict.listings[1].entry.reason == "many users"
    assert verdict.banned


def test_the_longest_listing_tells_the_end(world: World) -> None:
    """As the publisher decides where bans overlap."""
    world.ban("198.51.100.7", lasts=60)
    world.ban("198.51.100.0/24", DETECTOR, lasts=600)
    verdict = world.explain("198.51.100.7")
    assert verdict.expires == NOW + 600
    assert verdict.ends == NOW + 600


def test_a_ban_for_good_has_no_end(world: World) -> None:
    """Not one in the year 2106."""
    world.ban("198.51.100.7", lasts=60)
    world.ban("198.51.100.0/24", DETECTOR, lasts=FOREVER - NOW)
    verdict = world.explain("198.51.100.7")
    assert (verdict.expires, verdict.ends) == (None, None)


def test_a_feeds_entry_is_in_force_for_its_grace(world: World) -> None:
    """As in the published list, and not a second longer."""
    world.ban("198.51.100.7", FEED_SOURCE, lasts=60)
    for after, banned in ((59, True), (61, True), (60 + HOUR - 1, True), (60 + HOUR, False)):
        assert world.explain("198.51.100.7", after=after).banned is banned, after
    verdict = world.explain("198.51.100.7", after=61)
    assert verdict.expires == NOW + 60
    assert verdict.ends == NOW + 60 + HOUR


def test_only_the_feeds_entries_have_a_grace(world: World) -> None:
    """A ban by hand ends when it ends; what is over is told, and bans nobody."""
    world.ban("198.51.100.7", LOCAL, lasts=60)
    verdict = world.explain("198.51.100.7", after=60)
    assert [one.in_force for one in verdict.listings] == [False]
    assert not verdict.banned


def test_part_of_a_second_is_rounded_up_as_the_publisher_does(world: World) -> None:
    """The snapshot knows whole seconds."""
    world.ban("198.51.100.7", LOCAL, lasts=60.25)
    assert world.explain("198.51.100.7", after=60.75).banned
    assert not world.explain("198.51.100.7", after=61).banned


def test_what_saves_a_listed_address_is_told(world: World) -> None:
    """By whom, and for which network; it is listed all the same."""
    world.ban("198.51.100.0/24")
    world.store.allow([parse_network("198.51.100.7")], reason="a customer", now=NOW, source=UNBAN)
    verdict = world.explain("198.51.100.7", own=(parse_network("198.51.100.7"),))
    assert verdict.listed
    assert not verdict.banned
    assert [one.kind for one in verdict.exemptions] == ["own", "allow list"]
    assert verdict.exemptions[1].allowed is not None
    assert verdict.exemptions[1].allowed.reason == "a customer"
    assert world.explain("198.51.100.8").banned


def test_an_allow_entry_that_ended_saves_nobody(world: World) -> None:
    """It may still be in the store."""
    world.ban("198.51.100.7", lasts=HOUR)
    world.store.allow([parse_network("198.51.100.7")], reason="", now=NOW, expires=NOW + 60)
    assert not world.explain("198.51.100.7", after=59).banned
    assert world.explain("198.51.100.7", after=60).banned


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.OFF])
def test_in_another_mode_a_banned_address_is_not_dropped(world: World, mode: Mode) -> None:
    """It is banned all the same."""
    world.ban("2001:db8::7")
    verdict = world.explain("2001:db8::7", mode=mode)
    assert verdict.banned
    assert not verdict.dropped
    assert world.explain("2001:db8::7").dropped


def test_a_mapped_address_is_the_ipv4_address(world: World) -> None:
    """A dual-stack socket shows it so."""
    world.store.record_page(
        FEED_SOURCE,
        [parse_network("198.51.100.7")],
        listed=NOW,
        expires=NOW + 60,
        state=FeedState("x"),
    )
    assert world.explain("::ffff:198.51.100.7").banned
