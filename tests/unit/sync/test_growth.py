from collections.abc import Iterator
from pathlib import Path

import pytest
from apiban.sync import growth as module
from apiban.sync.growth import Growth

from tests.support.clock import ManualClock
from tests.unit.sync.world import DAY, World, addresses


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a list of tens be a long one."""
    monkeypatch.setattr(module, "_ALWAYS", 5)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a world whose list of 20 may grow by half of itself a day."""
    made = World(tmp_path, max_growth=0.5, reconcile_every=30 * DAY)
    made.load(*addresses(20))
    yield made
    made.store.close()


def _settle(world: World) -> None:
    world.run(400)


def test_first_load_is_not_held(world: World) -> None:
    """From nothing to twenty is no growth."""
    assert len(world.listed()) == 20
    assert world.sync.held_back == ""


def test_list_grows_by_its_share_and_no_more(world: World) -> None:
    """The page that goes beyond is held whole, said once, and asked for again in its time."""
    world.feed.add(*addresses(10, first=100))
    _settle(world)
    assert len(world.listed()) == 30
    world.feed.add("192.0.2.1", "192.0.2.2")
    _settle(world)
    assert len(world.listed()) == 30
    assert (world.sync.held_back, world.sync.waiting) == ("growth-held", 2)
    assert (world.sync.next_request_in() or 0) > 300
    before = len(world.asked())
    world.run(3600)
    assert 3 <= len(world.asked(before)) <= 4
    (said,) = world.log.fields("feed-trouble")
    assert (said["state"], said["entries"]) == ("growth-held", 30)
    assert world.sync.health == "ok"


def test_renewals_are_no_growth(world: World) -> None:
    """A page of what is listed already is taken while another is held."""
    world.feed.add(*addresses(20))
    _settle(world)
    assert world.sync.held_back == ""
    assert world.log.fields("page")[-1]["listed"] == 20


def test_other_walk_goes_on_while_one_is_held(world: World) -> None:
    """A full pass renews what is listed already, up to where the growth is."""
    world.feed.size = 20
    world.feed.add(*addresses(11, first=100))
    _settle(world)
    assert world.sync.waiting == 11
    before = len(world.asked())
    world.sync.ask_now(full=True)
    world.until(lambda: world.sync.state.pass_cursor == "1020")
    assert world.asked(before).count("100") == 1
    # The page that was taken does not make the live walk's page any less held.
    assert (world.sync.held_back, world.sync.waiting) == ("growth-held", 11)


def test_accepting_lets_in_what_waits(world: World) -> None:
    """At once, also when one page alone is more than a day's share."""
    world.feed.add(*addresses(60, first=100))
    _settle(world)
    assert world.sync.waiting == 60
    world.sync.accept_hold()
    world.run(5)
    assert len(world.listed()) == 80
    assert (world.sync.held_back, world.sync.waiting) == ("", 0)


def test_accepting_is_not_for_good(world: World) -> None:
    """From what the list was when it was accepted, the same share counts again."""
    world.feed.add(*addresses(60, first=100))
    _settle(world)
    world.sync.accept_hold()
    _settle(world)
    world.feed.add(*addresses(30, first=200))
    _settle(world)
    assert world.sync.held_back == "growth-held"


def test_next_day_has_a_share_of_its_own(world: World) -> None:
    """What is held is tried again, and fits now; the list that it grew to counts."""
    world.feed.add(*addresses(10, first=100))
    _settle(world)
    world.feed.add(*addresses(15, first=200))
    _settle(world)
    assert world.sync.waiting == 15
    world.run(DAY, step=60)
    assert len(world.listed()) == 45
    assert world.sync.held_back == ""


def test_hold_ends_when_the_feed_takes_it_back(world: World) -> None:
    """A mistake of the feed's that it mended leaves nothing to accept."""
    world.feed.add(*addresses(60, first=100))
    _settle(world)
    world.feed.remove(*addresses(60, first=100))
    world.run(1000)
    assert (world.sync.held_back, world.sync.waiting) == ("", 0)
    assert len(world.listed()) == 20


def test_another_list_is_a_first_load(world: World) -> None:
    """It is as long as it is."""
    world.feed.add(*addresses(200, first=100))
    world.restart(set="all")
    world.until(lambda: world.sync.state.pass_ended is not None)
    assert len(world.listed()) == 220


def test_zero_is_no_limit(tmp_path: Path) -> None:
    """feed.max_growth = 0 leaves it to feed.max_entries."""
    world = World(tmp_path, max_growth=0.0)
    world.load(*addresses(2))
    world.feed.add(*addresses(200, first=100))
    world.run(300)
    assert len(world.listed()) == 202
    world.store.close()


def test_a_few_may_always_come() -> None:
    """A short list may double; one more is held."""
    growth = Growth(ManualClock(), 1.0)
    assert growth.may_grow(1, 5)
    growth.took(5)
    assert not growth.may_grow(6, 1)
