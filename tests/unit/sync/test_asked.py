"""What the operator asks of the sync: now, from the start, and to do what it holds back."""

from collections.abc import Callable
from pathlib import Path

import pytest
from apiban.errors import FeedOutage, FeedRateLimited
from apiban.settings import Secret
from apiban.store import FEED_SOURCE

from tests.unit.sync.world import DAY, World, addresses

# Asking now ------------------------------------------------------------------------------------


def test_feed_is_asked_before_its_interval_is_over(world: World) -> None:
    """At the next tick, from where the live walk is; the next one has its interval again."""
    world.load(*addresses(3))
    world.run(300)
    world.until(lambda: world.sync.next_request_in() == 100)
    world.feed.add("192.0.2.1")
    before = len(world.asked())
    world.sync.ask_now(full=False)
    assert world.sync.next_request_in() == 0
    world.run(2)
    assert world.asked(before)[0] == "1003"
    assert "192.0.2.1" in world.listed()
    world.run(60)
    assert len(world.asked(before)) == 2  # the page, and that there is no more


def test_asking_keeps_to_the_rate_limit(world: World) -> None:
    """However often the operator asks."""
    world.load(*addresses(3))
    world.run(300)
    before, left = len(world.asked()), world.sync.budget_left
    assert left > 1
    for _ in range(60):
        world.sync.ask_now(full=False)
        world.run(1)
    assert len(world.asked(before)) == left
    assert world.sync.budget_left == 0
    wait = world.sync.next_request_in()
    assert wait is not None
    world.run(wait - 1)
    assert len(world.asked(before)) == left
    world.run(2)
    assert len(world.asked(before)) == left + 1


def test_asking_ends_our_own_pause_after_an_outage(world: World) -> None:
    """The operator knows that the network is back."""
    world.load(*addresses(3))
    world.feed.error = FeedOutage("down")
    world.run(3600, step=10)
    assert world.sync.error == "down"
    world.run(300)  # so that the budget is whole again
    world.feed.error = None
    before = len(world.asked())
    world.sync.ask_now(full=False)
    world.run(2)
    assert len(world.asked(before)) == 1
    assert world.sync.health == "ok"
    assert world.sync.error == ""


def test_asking_does_not_end_a_pause_that_the_feed_asked_for(world: World) -> None:
    """Rate limited means rate limited."""
    world.load(*addresses(3))
    world.feed.error = FeedRateLimited("slow down", 3600.0)
    world.until(lambda: world.sync.health == "rate-limited")
    before = len(world.asked())
    world.sync.ask_now(full=True)
    world.run(600)
    assert len(world.asked(before)) == 0
    assert 2990 <= (world.sync.next_request_in() or 0) <= 3000


def test_full_pass_begins_when_it_is_asked_for(world: World) -> None:
    """It removes what the feed no longer lists, long before its day is over."""
    world.load(*addresses(6))
    world.run(300)
    world.feed.remove(addresses(6)[0])
    world.sync.ask_now(full=True)
    world.run(5)
    assert world.listed() == set(addresses(6)[1:])
    assert world.sync.state.pass_number == 2
    world.run(3600)
    assert world.sync.state.pass_number == 2


def test_full_pass_that_was_asked_for_is_not_forgotten_for_a_short_look(world: World) -> None:
    """Two commands one after the other, before the rate limit allows either."""
    world.load(*addresses(6))
    world.run(300)
    world.sync.ask_now(full=True)
    world.sync.ask_now(full=False)
    world.run(5)
    assert world.sync.state.pass_number == 2


def test_full_pass_asked_for_while_one_runs_is_that_one(world: World) -> None:
    """It goes on from where it is, and no other follows it."""
    world.load(*addresses(6))
    world.feed.size = 2
    world.run(300)
    world.sync.ask_now(full=True)
    world.until(lambda: world.sync.state.pass_cursor == "1004")
    world.sync.ask_now(full=True)
    before = len(world.asked())
    world.until(lambda: world.sync.state.pass_started is None)
    assert "100" not in world.asked(before)
    world.run(600)
    assert world.sync.state.pass_number == 2


# What comes next -------------------------------------------------------------------------------


def _next(world: World, step: float = 1.0) -> float:
    """Give how long it takes until the feed is asked."""
    before = len(world.asked())
    return world.until(lambda: len(world.asked()) > before, within=2 * DAY, step=step)


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda world: None, id="live"),
        pytest.param(lambda world: world.clock.tick(DAY - 30), id="pass"),
        pytest.param(lambda world: setattr(world.feed, "error", FeedOutage("x")), id="outage"),
        pytest.param(
            lambda world: setattr(world.feed, "error", FeedRateLimited("x", 500.0)), id="limited"
        ),
    ],
)
def test_next_request_is_when_it_is_said(world: World, prepare: Callable[[World], None]) -> None:
    """Whatever holds it up: the interval, the pass's day, our pause, or the feed's."""
    world.load(*addresses(3))
    world.run(301)
    prepare(world)
    for _ in range(4):
        _next(world)
        world.run(1)  # its answer is taken
        said = world.sync.next_request_in()
        assert said is not None
        assert _next(world) == pytest.approx(said, abs=1.01)


def test_next_request_of_a_walk_that_rests_is_when_its_rest_ends(tmp_path: Path) -> None:
    """A list that is too long is not asked for again at once, and nobody says so."""
    world = World(tmp_path, max_entries=5)
    world.feed.add(*addresses(9))
    world.until(lambda: world.sync.held_back == "too-long")
    assert world.sync.waiting == 0
    said = world.sync.next_request_in()
    assert said is not None
    assert said > 800
    assert _next(world) == pytest.approx(said, abs=1.01)
    world.run(1)
    before = len(world.asked())
    world.run(300)
    world.sync.ask_now(full=False)
    world.run(2)
    assert len(world.asked(before)) == 1
    world.store.close()


def test_without_a_key_there_is_no_next_request(tmp_path: Path) -> None:
    """None, and not soon."""
    world = World(tmp_path, key=Secret(""))
    world.run(5)
    assert world.sync.next_request_in() is None
    world.store.close()


# How far a pass is -----------------------------------------------------------------------------


def test_pass_says_how_much_it_met(world: World) -> None:
    """Page by page, over a restart, and at its end; the next one begins at nothing."""
    world.load(*addresses(6))
    world.feed.size = 2
    world.run(300)
    world.sync.ask_now(full=True)
    seen = []
    for _ in range(3):
        world.until(lambda: world.sync.state.pass_started is not None)
        now = len(world.asked())
        world.until(lambda now=now: len(world.asked()) > now)  # type: ignore[misc]
        seen.append(world.sync.pass_seen)
    assert seen == sorted(seen)
    world.restart()
    assert world.sync.pass_seen == seen[-1] > 0
    world.until(lambda: world.sync.state.pass_started is None)
    assert world.sync.pass_seen == 6
    world.sync.ask_now(full=True)
    world.until(lambda: world.sync.state.pass_number == 3)
    assert world.sync.pass_seen < 6


# Accepting a held pass -------------------------------------------------------------------------


def _hold(world: World, left: int = 1) -> None:
    """Load six, let the feed list a few of them, and come to a held pass."""
    world.load(*addresses(6))
    world.feed.remove(*addresses(6)[left:])
    world.clock.tick(DAY)
    world.until(lambda: world.sync.state.held == 1)


def test_held_pass_is_done_when_it_is_accepted(world: World) -> None:
    """At once and once; the next pass has nothing left to hold."""
    _hold(world)
    changes = len(world.changes)
    world.sync.accept_hold()
    assert world.listed() == {addresses(6)[0]}
    assert world.sync.state.held == 0
    assert world.sync.state.held_since is None
    assert world.changes[changes:] == [1]
    assert world.log.fields("pass-end")[-1]["removed"] == 5
    assert world.store.feed(FEED_SOURCE, world.settings.identity) == world.sync.state
    world.sync.accept_hold()
    assert len(world.changes) == changes + 1


def test_accepting_while_a_new_pass_is_under_way_keeps_what_the_held_one_met(
    world: World,
) -> None:
    """The new pass met nothing yet; what it goes by is the pass that was held."""
    _hold(world, left=2)
    world.feed.size = 1
    world.feed.add("192.0.2.7")
    world.until(lambda: "192.0.2.7" in world.listed())
    world.run(300)
    world.exchange.slow = True
    world.sync.ask_now(full=True)
    world.until(lambda: world.sync.state.pass_started is not None)
    number = world.sync.state.pass_number
    world.sync.accept_hold()
    assert world.listed() == {*addresses(6)[:2], "192.0.2.7"}
    assert world.sync.state.pass_number == number
    assert world.sync.state.pass_started is not None
    world.exchange.slow = False
    world.until(lambda: world.sync.state.pass_started is None)
    assert world.listed() == {*addresses(6)[:2], "192.0.2.7"}


def test_accepting_when_nothing_is_held_does_nothing(world: World) -> None:
    """Not even in the middle of a pass."""
    world.load(*addresses(6))
    world.feed.size = 2
    world.run(300)
    world.sync.ask_now(full=True)
    world.until(lambda: world.sync.state.pass_cursor is not None)
    world.sync.accept_hold()
    assert world.listed() == set(addresses(6))
    assert len(world.changes) > 0
