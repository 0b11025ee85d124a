from apiban.store import FEED_SOURCE, FeedState

from tests.unit.cli.node import NodeOnHost, networks

ADDRESSES = [f"198.51.100.{number}" for number in range(1, 31)]


def _hold(node: NodeOnHost, keep: int = 5) -> None:
    """Let the last pass have met a few alone; it is held."""
    now = node.clock.now()
    identity = node.settings.feed.identity
    old = FeedState(identity, cursor="900", complete_at=now, pass_number=1, pass_ended=now)
    for number, texts in ((1, ADDRESSES), (2, ADDRESSES[:keep])):
        state = FeedState(**{**_fields(old), "pass_number": number})
        node.store.record_page(
            FEED_SOURCE, networks(texts), listed=now, expires=now + 9999, state=state
        )
    node.save_feed(pass_ended=now, held=1, held_since=now)


def _fields(state: FeedState) -> dict[str, object]:
    return {name: getattr(state, name) for name in FeedState.__slots__}


def test_nothing_is_held(node: NodeOnHost) -> None:
    """Status 0 to look; there is nothing to accept."""
    assert node.run("feed", "hold", "show").out == "nothing is held\n"
    said = node.run("feed", "hold", "show", "--json").json
    assert said == {"pass": None, "growth": None, "too_long": False}
    done = node.run("feed", "hold", "accept")
    assert done.status == 1
    assert "nothing is held" in done.err
    assert node.store.open_tasks() == []


def test_held_pass_is_shown(node: NodeOnHost) -> None:
    """How many of how many, since when, and a sample; all of them if asked."""
    _hold(node)
    node.clock.tick(3 * 3600)
    done = node.run("feed", "hold", "show")
    assert done.status == 0
    assert "25 of 30" in done.out
    assert "(3 h ago)" in done.out
    assert "198.51.100.6\n" in done.out
    assert "198.51.100.5\n" not in done.out
    assert "15 more" in done.out
    whole = node.run("feed", "hold", "show", "--all")
    assert all(f"  {text}\n" in whole.out for text in ADDRESSES[5:])
    assert "more" not in whole.out
    said = node.run("feed", "hold", "show", "--all", "--json").json["pass"]
    assert (said["would_remove"], said["total"], said["passes"]) == (25, 30, 1)
    assert said["addresses"] == ADDRESSES[5:]


def test_held_pass_is_the_last_that_ended(node: NodeOnHost) -> None:
    """A pass under way that met little so far is not what is held."""
    _hold(node)
    node.save_feed(pass_number=3, pass_started=node.clock.now())
    assert "25 of 30" in node.run("feed", "hold", "show").out


def test_accept_removes_and_publishes(node: NodeOnHost) -> None:
    """When the command ends the list is the feed's, in every worker."""
    _hold(node)
    node.feed.add(*ADDRESSES[:5])
    with node.syncing():
        done = node.run("feed", "hold", "accept", "--json")
        assert done.status == 0
        assert done.json["removed"] == 25
        assert done.json["in_force"]["seconds"] < 5
        assert node.store.count(FEED_SOURCE) == 5
        assert node.run("feed", "hold", "show").out == "nothing is held\n"
        assert node.run("check", ADDRESSES[7]).status == 0


def test_accept_without_a_sync_process(node: NodeOnHost) -> None:
    """It is stored for the next one, status 0."""
    _hold(node)
    done = node.run("feed", "hold", "accept")
    assert done.status == 0
    assert "no sync process runs" in done.err
    assert [task.name for task in node.store.open_tasks()] == ["accept-hold"]
    assert node.store.count(FEED_SOURCE) == 30
    with node.syncing():
        assert node.store.count(FEED_SOURCE) == 5


def test_growth_is_shown(node: NodeOnHost) -> None:
    """How many wait, by which setting."""
    node.sync_reports(held_back="growth-held", waiting=1200)
    done = node.run("feed", "hold", "show")
    assert "1,200 new addresses" in done.out
    assert "feed.max_growth" in done.out
    assert node.run("feed", "hold", "show", "--json").json["growth"] == {"waiting": 1200}


def test_growth_is_accepted(node: NodeOnHost) -> None:
    """The task is left for the sync process that reported it."""
    node.sync_reports(held_back="growth-held", waiting=1200)
    done = node.run("feed", "hold", "accept", "--no-wait")
    assert done.status == 0
    assert [task.name for task in node.store.open_tasks()] == ["accept-hold"]


def test_list_that_is_too_long(node: NodeOnHost) -> None:
    """It names the setting: to accept would not help."""
    node.sync_reports(held_back="too-long")
    assert "feed.max_entries" in node.run("feed", "hold", "show").out
    assert node.run("feed", "hold", "accept").status == 1


def test_list_that_is_too_long_cannot_be_accepted(node: NodeOnHost) -> None:
    """It is held, and the settings alone can take it."""
    node.sync_reports(held_back="too-long")
    done = node.run("feed", "hold", "accept")
    assert done.status == 1
    assert "feed.max_entries" in done.err


def test_what_accepting_growth_means_is_said(node: NodeOnHost) -> None:
    """Not that all that follows is taken: beyond the day's share it is held again."""
    with node.syncing():
        node.sync_reports(held_back="growth-held", waiting=250, pid=1)
        done = node.run("feed", "hold", "accept")
    assert done.status == 0, done.err
    assert "250 addresses, and for a day as many more as 100% of the list" in done.out
    assert "what is beyond that is held again" in done.out
