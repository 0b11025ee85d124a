from itertools import pairwise
from pathlib import Path

import pytest
from apiban.address import parse_network
from apiban.errors import (
    FeedError,
    FeedInvalid,
    FeedOutage,
    FeedRateLimited,
    FeedUnauthorized,
    StoreError,
)
from apiban.settings import Secret
from apiban.store import FEED_SOURCE, SentRequest

from tests.unit.sync.world import DAY, World, addresses

WEEK = 7 * DAY


def _expires(world: World, text: str) -> float:
    (entry,) = world.store.find(parse_network(text))
    return entry.expires


# The first load --------------------------------------------------------------------------------


def test_first_load_comes_page_by_page(world: World) -> None:
    """Each page is in the store, and said to the publisher, before the next is asked for."""
    world.feed.size = 10
    world.load(*addresses(25))
    assert world.changes == [10, 20, 25]
    assert world.asked() == ["100", "1010", "1020", "1025"]
    assert world.listed() == set(addresses(25))
    assert world.sync.state.cursor == "1025"
    assert world.sync.health == "ok"
    assert world.said("page") == 3


def test_tick_sends_one_request_at_most(world: World) -> None:
    """However much there is to do."""
    world.feed.size = 1
    world.feed.add(*addresses(20))
    for tick in range(1, 6):
        world.sync.tick()
        assert len(world.asked()) == tick


def test_slow_answer_is_waited_for_without_another_request(world: World) -> None:
    """While a question is under way none other is asked, and the list stays."""
    world.feed.add(*addresses(3))
    world.exchange.slow = True
    world.run(25)
    assert len(world.asked()) == 1
    assert world.listed() == set()
    world.exchange.slow = False
    world.sync.tick()
    assert world.listed() == set(addresses(3))


def test_first_load_keeps_to_the_budget(world: World) -> None:
    """A long list takes its time: 5 requests in any 120 s."""
    world.feed.size = 1
    world.feed.add(*addresses(30))
    sent: list[int] = []
    for _ in range(600):
        world.run(1)
        sent.append(len(world.asked()))
    assert sent[0] == 1
    assert all(later - earlier <= 5 for earlier, later in zip(sent, sent[120:], strict=False))
    assert sent[-1] == 25


def test_empty_feed_is_a_complete_list(world: World) -> None:
    """The first pass over nothing ends, and the live walk begins from the start."""
    world.load()
    world.run(130)
    assert set(world.asked()) == {"100"}
    world.feed.add("192.0.2.1")
    world.run(130)
    assert world.listed() == {"192.0.2.1"}


# The live walk ---------------------------------------------------------------------------------


def test_live_walk_goes_on_from_its_cursor(world: World) -> None:
    """After the load it asks once an interval for what is new, and nothing else."""
    world.load(*addresses(3))
    before = len(world.asked())
    world.run(400)
    assert world.asked(before) == ["1003"] * 3
    world.feed.add("192.0.2.1")
    world.run(130)
    assert "192.0.2.1" in world.listed()
    assert world.sync.state.cursor == "1004"


def test_live_walk_reads_on_at_once_while_there_is_more(world: World) -> None:
    """Pages that wait are fetched without the interval between them."""
    world.load(*addresses(1))
    world.run(600)
    world.feed.size = 1
    world.feed.add(*addresses(3, first=10))
    before = len(world.asked())
    world.until(lambda: len(world.listed()) == 4)
    assert world.asked(before) == ["1001", "1002", "1003", "1004"]


def test_live_walk_resumes_after_a_restart(world: World) -> None:
    """The cursor comes from the store: the list is not walked again."""
    world.load(*addresses(3))
    world.restart()
    before = len(world.asked())
    world.run(300)
    assert set(world.asked(before)) == {"1003"}


def test_live_and_full_walk_take_turns(world: World) -> None:
    """A full pass holds the live walk up by one request at most, and the other way round."""
    world.load(*addresses(20))
    world.feed.size = 1
    world.feed.add(*addresses(20, first=100))
    world.clock.tick(DAY)
    before = len(world.asked())
    world.until(lambda: len(world.asked()) >= before + 12)
    # The live walk's cursor began at 1020; twelve requests do not bring the pass there.
    walks = ["pass" if int(cursor) < 1020 else "live" for cursor in world.asked(before)]
    assert walks == ["live", "pass"] * 6


# The full pass ---------------------------------------------------------------------------------


def test_restart_in_a_pass_resumes_it(world: World) -> None:
    """No page is asked for twice, and the pass's end is the same."""
    world.feed.size = 2
    world.feed.add(*addresses(6))
    world.until(lambda: len(world.listed()) == 4)
    asked = len(world.asked())
    world.restart()
    world.until(lambda: world.sync.state.pass_ended is not None)
    assert world.asked(asked) == ["1004", "1006"]
    assert world.sync.state.pass_number == 1
    assert world.listed() == set(addresses(6))


def test_unanswered_page_is_asked_for_again_after_a_restart(world: World) -> None:
    """The cursor moves with the page's entries, and not before."""
    world.feed.size = 2
    world.feed.add(*addresses(4))
    world.exchange.slow = True
    world.run(3)
    assert world.sync.state.pass_cursor is None
    world.restart()
    world.until(lambda: world.sync.state.pass_ended is not None)
    assert world.asked() == ["100", "100", "1002", "1004"]
    assert world.listed() == set(addresses(4))


def test_reconcile_removes_what_the_feed_no_longer_lists(world: World) -> None:
    """Only at the end of a complete pass, one a day."""
    world.load(*addresses(6))
    world.feed.remove(*addresses(2))
    world.run(DAY - 3600, step=30)
    assert len(world.listed()) == 6
    changes = len(world.changes)
    world.run(2 * 3600, step=30)
    assert world.listed() == set(addresses(6)[2:])
    assert len(world.changes) > changes
    assert world.sync.state.pass_number == 2
    assert world.log.fields("pass-end")[-1]["removed"] == 2


@pytest.mark.parametrize("error", [FeedOutage("x"), FeedInvalid("x"), FeedRateLimited("x")])
def test_incomplete_pass_removes_nothing(world: World, error: FeedError) -> None:
    """A pass that the feed breaks off waits where it is, and ends when the feed is back."""
    world.load(*addresses(6))
    world.feed.size = 1
    world.feed.remove(*addresses(2))
    world.clock.tick(DAY)
    world.until(lambda: world.sync.state.pass_cursor == "1003")
    world.feed.error = error
    world.run(3 * 3600, step=10)
    assert len(world.listed()) == 6
    assert world.sync.state.pass_started is not None
    world.feed.error = None
    before = len(world.asked())
    world.until(lambda: len(world.listed()) == 4)
    assert "100" not in world.asked(before)


def test_entry_that_the_live_walk_listed_during_a_pass_survives(world: World) -> None:
    """The pass went past its place before it was listed."""
    world.load(*addresses(6))
    world.feed.size = 2
    world.clock.tick(DAY)
    world.until(lambda: world.sync.state.pass_cursor is not None)
    # Listed by the live walk, and gone from the feed before the pass comes to its ID.
    world.feed.add("192.0.2.1")
    world.until(lambda: "192.0.2.1" in world.listed())
    assert world.sync.state.pass_started is not None
    world.feed.remove("192.0.2.1")
    world.until(lambda: world.sync.state.pass_started is None)
    assert "192.0.2.1" in world.listed()


def test_clock_set_back_during_a_pass_costs_no_entry(world: World) -> None:
    """What the pass itself saw has its number, whatever the clock said."""
    world.load(*addresses(4))
    world.feed.size = 2
    world.clock.tick(DAY)
    world.until(lambda: world.sync.state.pass_cursor is not None)
    world.clock.set_wall(world.clock.now() - 3600)
    world.until(lambda: world.sync.state.pass_started is None)
    assert world.listed() == set(addresses(4))


def test_clock_set_back_does_not_stop_the_reconcile(world: World) -> None:
    """A pass that ended in the future is due again at once."""
    world.load(*addresses(4))
    number = world.sync.state.pass_number
    world.clock.set_wall(world.clock.now() - 30 * DAY)
    world.until(lambda: world.sync.state.pass_number > number, within=300)


def test_entry_listed_under_a_clock_in_the_future_is_reconciled(world: World) -> None:
    """A clock that was wrong at the load and was set right does not make bans of years."""
    right = world.clock.now()
    world.clock.set_wall(right + 3 * 365 * DAY)
    world.load(*addresses(6))
    world.clock.set_wall(right)
    world.feed.remove(addresses(6)[0])
    world.run(4 * DAY, step=60)
    assert addresses(6)[0] not in world.listed()


def test_ban_that_a_clock_in_the_future_made_is_cut_to_size(world: World) -> None:
    """No ban is longer than feed.ban_for from now once the clock is right and it was renewed."""
    right = world.clock.now()
    world.clock.set_wall(right + 3 * 365 * DAY)
    world.load(*addresses(2))
    world.clock.set_wall(right)
    world.run(DAY, step=60)
    assert _expires(world, addresses(2)[0]) <= world.clock.now() + WEEK


def test_feed_whose_ids_begin_anew_is_followed_live(world: World) -> None:
    """After a complete pass the live walk goes on from where that pass came to."""
    world.load(*addresses(6))
    world.feed.entries = [(entry - 900, text) for entry, text in world.feed.entries]
    world.feed._next -= 900
    world.run(DAY + 3600, step=30)
    world.feed.add("192.0.2.1")
    world.run(300)
    assert "192.0.2.1" in world.listed()


# Held passes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1, 2])
def test_pass_that_would_remove_more_than_half_is_held(world: World, left: int) -> None:
    """An empty list is held as well: each hour a pass looks again, for a day at least."""
    world.load(*addresses(6))
    world.feed.remove(*addresses(6)[left:])
    world.clock.tick(DAY)
    world.until(lambda: world.said("pass-held") == 1, step=5)
    world.run(3000, step=30)
    assert world.sync.state.held == 1
    world.until(lambda: world.sync.state.held == 2, step=30)
    world.run(DAY - 2 * 3600, step=30)
    assert world.said("pass-held") == 1
    assert len(world.listed()) == 6
    world.until(lambda: len(world.listed()) == left, within=3 * 3600, step=30)
    assert world.sync.state.held == 0
    assert world.sync.state.held_since is None


def test_held_pass_is_not_confirmed_by_time_alone(tmp_path: Path) -> None:
    """Without a day's patience it still takes as many passes as the setting says."""
    world = World(tmp_path, confirm_after=0.0)
    world.load(*addresses(6))
    world.feed.remove(*addresses(6))
    world.clock.tick(DAY)
    world.until(lambda: world.sync.state.held == 2, within=3 * 3600, step=30)
    assert world.listed() == set(addresses(6))
    world.until(lambda: world.listed() == set(), within=3 * 3600, step=30)
    assert world.said("pass-held") == 1
    world.store.close()


def test_exactly_half_is_not_held(world: World) -> None:
    """More than half is what is held."""
    world.load(*addresses(6))
    world.feed.remove(*addresses(3))
    world.clock.tick(DAY)
    world.until(lambda: len(world.listed()) == 3)
    assert world.said("pass-held") == 0


def test_held_pass_is_refuted_by_a_good_one(world: World) -> None:
    """When the list is back, the count of held passes begins anew."""
    world.load(*addresses(6))
    world.feed.remove(*addresses(6))
    world.clock.tick(DAY)
    world.until(lambda: world.said("pass-held") == 1)
    world.feed.add(*addresses(6))
    world.until(lambda: world.sync.state.held == 0, within=2 * 3600, step=30)
    world.feed.remove(*addresses(6))
    world.clock.tick(DAY)
    world.until(lambda: world.said("pass-held") == 2, step=30)
    assert len(world.listed()) == 6


def test_held_count_survives_a_restart(world: World) -> None:
    """A restart loop neither confirms nor forgets."""
    world.load(*addresses(6))
    world.feed.remove(*addresses(6))
    world.clock.tick(DAY)
    world.until(lambda: world.said("pass-held") == 1)
    for _ in range(5):
        world.restart()
        world.run(200, step=10)
    assert world.sync.state.held == 1
    assert len(world.listed()) == 6


def test_one_confirming_pass_means_no_hold(tmp_path: Path) -> None:
    """With confirm_passes = 1 a complete pass counts as it is."""
    world = World(tmp_path, confirm_passes=1, confirm_after=0.0)
    world.load(*addresses(6))
    world.feed.remove(*addresses(6))
    world.clock.tick(DAY)
    world.until(lambda: world.listed() == set())
    assert world.said("pass-held") == 0
    world.store.close()


# What a page may hold --------------------------------------------------------------------------


def test_private_and_broad_entries_are_refused_and_the_rest_taken(world: World) -> None:
    """They are said, and the cursor moves past them."""
    world.load("192.0.2.1", "10.0.0.1", "198.0.0.0/8", "192.0.2.2")
    assert world.listed() == {"192.0.2.1", "192.0.2.2"}
    assert world.sync.state.cursor == "1004"
    (refused,) = world.log.fields("entries-refused")
    assert refused["count"] == 2


def test_page_of_nothing_but_refused_entries_is_gone_past(world: World) -> None:
    """The walk does not stay before it for ever."""
    world.feed.size = 2
    world.load("10.0.0.1", "10.0.0.2", "192.0.2.1")
    assert world.listed() == {"192.0.2.1"}


def test_page_beyond_the_cap_is_refused(tmp_path: Path) -> None:
    """A feed that grows without end does not fill the store; what was taken stays."""
    world = World(tmp_path, max_entries=5)
    world.feed.size = 3
    world.feed.add(*addresses(9))
    world.run(1000)
    assert world.listed() == set(addresses(3))
    assert world.sync.state.pass_cursor == "1003"
    assert world.said("feed-trouble") == 1
    assert world.log.fields("feed-trouble")[0]["state"] == "too-long"
    world.store.close()


def test_list_of_exactly_the_cap_is_taken(tmp_path: Path) -> None:
    """Renewals do not count as growth."""
    world = World(tmp_path, max_entries=5)
    world.load(*addresses(5))
    world.feed.add(*addresses(5))
    world.run(300)
    assert world.sync.health == "ok"
    assert world.listed() == set(addresses(5))
    world.store.close()


def test_refused_pass_beside_a_good_live_walk_is_said_once(tmp_path: Path) -> None:
    """A trouble that lasts is one line, though another walk's answers are good."""
    world = World(tmp_path, max_entries=5)
    world.load(*addresses(5))
    world.feed.entries = [(n + 200, text) for n, text in enumerate(addresses(9, first=20))]
    world.clock.tick(DAY)
    world.run(3600, step=5)
    assert world.said("feed-trouble") <= 2
    world.store.close()


# Failures --------------------------------------------------------------------------------------


def test_cursor_is_not_lost_on_failures(world: World) -> None:
    """Whatever the feed answers, the next question is the same one."""
    world.load(*addresses(3))
    before = len(world.asked())
    for error in (FeedOutage("x"), FeedInvalid("x"), FeedUnauthorized("x"), FeedRateLimited("x")):
        world.feed.error = error
        asked = len(world.asked())
        world.until(lambda asked=asked: len(world.asked()) > asked, within=2 * 3600, step=5)  # type: ignore[misc]
    assert set(world.asked(before)) == {"1003"}
    assert world.listed() == set(addresses(3))
    assert world.sync.state.cursor == "1003"


def test_outage_backs_off_up_to_the_ceiling(world: World) -> None:
    """The pauses double from 10 s to 15 minutes."""
    world.feed.error = FeedOutage("x")
    at: list[float] = []
    while len(at) < 12:
        asked = len(world.asked())
        world.until(lambda asked=asked: len(world.asked()) > asked)  # type: ignore[misc]
        at.append(world.clock.uptime())
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert all(later >= earlier for earlier, later in pairwise(gaps))
    assert gaps[0] <= 12
    assert 900 <= gaps[-1] <= 903
    assert gaps[-2] == gaps[-1]


def test_jitter_spreads_the_nodes(tmp_path: Path) -> None:
    """The pause grows by up to a quarter, and never shrinks."""
    world = World(tmp_path)
    world.jitter = lambda: 0.999
    world.restart()
    world.feed.error = FeedOutage("x")
    world.run(2)
    assert world.log.fields("feed-trouble")[0]["retry_in"] == pytest.approx(12.5, abs=0.1)
    world.store.close()


@pytest.mark.parametrize(
    ("retry_after", "pause"), [(300.0, 300), (None, 120), (1.0, 10), (0.0, 120)]
)
def test_rate_limit_is_honoured(world: World, retry_after: float | None, pause: int) -> None:
    """Retry-After when it is given, the whole window when not; never less than our own pause."""
    world.feed.error = FeedRateLimited("x", retry_after)
    world.until(lambda: world.sync.health == "rate-limited")
    asked = len(world.asked())
    world.run(pause - 1)
    assert len(world.asked()) == asked
    world.run(3)
    assert len(world.asked()) == asked + 1


def test_rate_limit_is_honoured_over_a_restart(world: World) -> None:
    """A sync process that is killed does not come back sooner than the feed asked for."""
    world.feed.error = FeedRateLimited("x", 3600.0)
    world.until(lambda: world.sync.health == "rate-limited")
    asked = len(world.asked())
    world.restart()
    world.run(600)
    assert len(world.asked()) == asked


def test_refused_key_is_retried_slowly(world: World) -> None:
    """Once in 15 minutes, and said once."""
    world.feed.error = FeedUnauthorized("x")
    world.run(3600)
    assert len(world.asked()) == 4
    assert world.said("feed-trouble") == 1
    assert world.sync.health == "unauthorized"


def test_each_change_of_state_is_said_once(world: World) -> None:
    """A day of outage is one line, and so is its end."""
    world.load(*addresses(3))
    assert world.said("feed") == 1
    world.feed.error = FeedOutage("x")
    world.run(DAY, step=10)
    assert world.said("feed-trouble") == 1
    world.feed.error = FeedUnauthorized("x")
    world.run(3600, step=10)
    assert world.said("feed-trouble") == 2
    world.feed.error = None
    world.run(3600, step=10)
    assert world.said("feed") == 2
    assert world.log.fields("feed-trouble")[0]["entries"] == 3


def test_success_resets_the_pauses(world: World) -> None:
    """After an outage the next one begins with the shortest pause."""
    world.load(*addresses(3))
    for _ in range(2):
        world.feed.error = FeedOutage("x")
        world.run(3600, step=10)
        world.feed.error = None
        world.run(3600, step=10)
    assert [said["retry_in"] for said in world.log.fields("feed-trouble")] == [10.0, 10.0]


def test_without_a_key_nothing_is_asked(tmp_path: Path) -> None:
    """It is said once, and what is stored stays in force until its time is over."""
    world = World(tmp_path)
    world.load(*addresses(3))
    before = len(world.asked())
    world.restart(key=Secret(""))
    world.run(3600)
    assert world.asked(before) == []
    assert world.said("feed-no-key") == 1
    assert world.sync.health == "no-key"
    assert world.listed() == set(addresses(3))
    world.store.close()


# Time ------------------------------------------------------------------------------------------


def test_listing_again_renews_the_ban(world: World) -> None:
    """The end is 7 days after the last listing, wherever the walk met it."""
    world.load(*addresses(2))
    first = _expires(world, addresses(2)[0])
    world.run(DAY / 2, step=60)
    world.feed.add(addresses(2)[0])
    world.run(300)
    renewed = _expires(world, addresses(2)[0])
    assert renewed == pytest.approx(first + DAY / 2, abs=300)
    assert _expires(world, addresses(2)[1]) == first


def test_ban_ends_at_the_next_complete_answer(tmp_path: Path) -> None:
    """The feed has the chance to renew it, and then it goes, and is published."""
    world = World(tmp_path, reconcile_every=30 * DAY)
    world.load(*addresses(2))
    ends = _expires(world, addresses(2)[0])
    world.until(lambda: world.clock.now() >= ends - 1, within=2 * WEEK, step=60)
    world.feed.add(addresses(2)[1])
    assert len(world.listed()) == 2
    changes = len(world.changes)
    world.until(lambda: world.clock.now() >= ends + 180, step=1)
    assert world.listed() == {addresses(2)[1]}
    assert len(world.changes) > changes
    assert world.said("stale") == 0
    world.store.close()


def test_expired_entries_stay_while_the_feed_is_down_up_to_stale_max(tmp_path: Path) -> None:
    """It is said once, and ends after stale_max."""
    world = World(tmp_path, stale_max=2 * DAY)
    world.load(*addresses(3))
    ends = _expires(world, addresses(3)[0])
    world.feed.error = FeedOutage("x")
    world.until(lambda: world.clock.now() > ends + 2 * DAY - 120, within=2 * WEEK, step=60)
    assert len(world.listed()) == 3
    assert world.said("stale") == 1
    world.run(300)
    assert world.listed() == set()
    assert world.said("expired") == 1
    world.store.close()


def test_answer_that_is_not_complete_ends_no_ban(tmp_path: Path) -> None:
    """A page alone does not say that there is no renewal behind it."""
    world = World(tmp_path, reconcile_every=30 * DAY)
    world.load(*addresses(2))
    ends = _expires(world, addresses(2)[0])
    world.feed.error = FeedOutage("x")
    world.until(lambda: world.clock.now() > ends, within=2 * WEEK, step=60)
    world.feed.size = 1
    world.feed.error = None
    world.feed.add("192.0.2.9", *addresses(2))
    world.until(lambda: "192.0.2.9" in world.listed(), step=1)
    assert set(addresses(2)) <= world.listed()
    world.run(600)
    assert set(addresses(2)) <= world.listed()
    assert world.said("expired") == 0
    world.store.close()


def test_clock_set_back_after_an_answer_ends_no_ban_early(world: World) -> None:
    """A complete answer in the future is no reason to end what is alive now."""
    world.load(*addresses(2))
    world.clock.set_wall(world.clock.now() - 5 * DAY)
    world.run(600)
    assert world.listed() == set(addresses(2))


def test_answer_of_a_clock_in_the_future_ends_no_new_ban(world: World) -> None:
    """What is listed after the clock was set right is alive, and stays."""
    world.load()
    world.clock.set_wall(world.clock.now() - 30 * DAY)
    world.feed.add("192.0.2.1")
    world.run(600)
    assert world.listed() == {"192.0.2.1"}
    assert world.said("expired") == 0


# Another list ----------------------------------------------------------------------------------


def test_another_identity_keeps_the_list_until_its_pass_is_complete(world: World) -> None:
    """The old list protects on; what both have stays, what only the old one had goes."""
    world.load(*addresses(6))
    world.feed.size = 2
    world.feed.entries = []
    world.feed.add(*addresses(6, first=2))
    before = len(world.asked())
    world.restart(set="all")
    assert world.sync.state.cursor is None
    world.until(lambda: len(world.asked()) == before + 3)
    assert world.listed() >= set(addresses(6))
    world.until(lambda: world.sync.state.pass_ended is not None)
    assert world.asked(before)[0] == "100"
    assert world.listed() == set(addresses(6, first=2))


def test_another_identity_does_not_use_the_old_cursor_after_a_restart(world: World) -> None:
    """Killed before its first page, the new list still begins at its start."""
    world.load(*addresses(3))
    world.restart(version=2)
    world.run(1)
    before = len(world.asked())
    world.restart()
    world.until(lambda: world.sync.state.cursor is not None)
    assert world.asked(before)[0] == "100"


# The store fails -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["record_page", "settle_request", "count_new"])
def test_page_that_cannot_be_stored_is_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Neither the list nor the cursor changes, and a new sync goes on from there."""
    world.feed.size = 2
    world.feed.add(*addresses(4))
    world.until(lambda: len(world.listed()) == 2)
    state = world.sync.state

    def fail(*_: object, **__: object) -> None:
        raise StoreError("full")

    monkeypatch.setattr(world.store, method, fail)
    with pytest.raises(StoreError):
        world.run(10)
    monkeypatch.undo()
    world.restart()
    assert world.sync.state == state
    assert world.listed() == set(addresses(2))
    world.until(lambda: world.sync.state.pass_ended is not None)
    assert world.listed() == set(addresses(4))


def test_request_that_cannot_be_noted_is_not_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget is kept also when it cannot be written."""

    def fail(feed: str, request: SentRequest, **_: object) -> int:
        raise StoreError(f"full: {feed} {request}")

    monkeypatch.setattr(world.store, "add_request", fail)
    for _ in range(3):
        with pytest.raises(StoreError):
            world.sync.tick()
        world.clock.tick(1)
    assert world.asked() == []


def test_same_sync_goes_on_after_a_page_that_could_not_be_stored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is asked for again, and nothing is skipped."""
    world.feed.add(*addresses(4))
    real = world.store.record_page
    failures = iter([True, False])

    def once(*args: object, **kwargs: object) -> int:
        if next(failures, False):
            raise StoreError("full")
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(world.store, "record_page", once)
    world.sync.tick()
    with pytest.raises(StoreError):
        world.sync.tick()
    world.until(lambda: world.sync.state.pass_ended is not None)
    assert world.asked() == ["100", "100", "1004"]
    assert world.listed() == set(addresses(4))


def test_end_of_a_pass_that_could_not_be_stored_is_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new sync ends the pass that the store has as under way, and removes what is gone."""
    world.load(*addresses(6))
    world.feed.remove(addresses(6)[0])
    world.clock.tick(DAY)

    def fail(*_: object, **__: object) -> int:
        raise StoreError("full")

    monkeypatch.setattr(world.store, "remove_unseen", fail)
    with pytest.raises(StoreError):
        world.run(600)
    monkeypatch.undo()
    assert len(world.listed()) == 6
    before = len(world.asked())
    world.restart()
    world.run(600)
    assert len(world.listed()) == 5
    assert "100" not in world.asked(before)


def test_source_of_every_entry_is_the_feed(world: World) -> None:
    """The entries carry the name that grace and reconcile go by."""
    world.load("192.0.2.1")
    assert world.store.find(parse_network("192.0.2.1"))[0].source == FEED_SOURCE
