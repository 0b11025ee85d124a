from apiban.address import parse_network
from apiban.store import DETECTOR, UNBAN

from tests.support.node import wait_for
from tests.unit.cli.node import DAY, NodeOnHost, networks


def test_unban_of_our_own(node: NodeOnHost) -> None:
    """The bans of the operator and of the detector end; both are named."""
    now = node.clock.now()
    node.run("ban", "198.51.100.7")
    node.store.ban(networks(["198.51.100.7"]), source=DETECTOR, reason="", expires=now + 9, now=now)
    done = node.run("unban", "198.51.100.7")
    assert done.status == 0
    assert "198.51.100.7 unbanned (local)" in done.out
    assert "198.51.100.7 unbanned (detector)" in done.out
    assert node.store.touching(parse_network("198.51.100.7")) == []
    assert node.store.allow_list() == []


def test_unban_of_the_feeds(node: NodeOnHost) -> None:
    """It is allowed for feed.ban_for, or as long as the operator says; the reason is kept."""
    node.feed_lists("198.51.100.7")
    done = node.run("unban", "198.51.100.7", "--reason", "a customer")
    assert "allowed until" in done.out
    assert "the feed lists 198.51.100.7" in done.out
    (entry,) = node.store.allow_list()
    assert (entry.source, entry.reason) == (UNBAN, "a customer")
    assert entry.expires == node.clock.now() + 7 * DAY
    node.run("unban", "198.51.100.7", "--for", "1h")
    (entry,) = node.store.allow_list()
    assert entry.expires == node.clock.now() + 3600


def test_next_listing_does_not_bring_it_back(node: NodeOnHost) -> None:
    """The published list has the feed's address before, and not after, whatever the feed says."""
    node.feed_lists("198.51.100.7", "198.51.100.8")
    node.feed.add("198.51.100.7", "198.51.100.8")
    with node.syncing():
        assert node.run("unban", "198.51.100.7").status == 0
        node.feed.add("198.51.100.7")
        passes = len(node.log.fields("pass-end"))
        node.clock.tick(600)
        assert node.run("sync", "--full", "--no-wait").status == 0
        wait_for(lambda: len(node.log.fields("pass-end")) > passes, "another listing")
        assert [one.source for one in node.store.find(parse_network("198.51.100.7"))] == ["apiban"]
        assert node.run("check", "198.51.100.7").status == 0
        assert node.run("check", "198.51.100.8").status == 3


def test_unban_inside_a_range(node: NodeOnHost) -> None:
    """It names the range that bans it still."""
    node.run("ban", "198.51.100.0/24")
    done = node.run("unban", "198.51.100.7", "--json")
    (allowed,) = done.json["allowed"]
    assert allowed["network"] == "198.51.100.7"
    assert allowed["expires"] == node.clock.now() + 7 * DAY
    assert allowed["banned_by"] == {
        "network": "198.51.100.0/24",
        "source": "local",
        "reason": "",
        "expires": None,
    }


def test_unban_of_nobody(node: NodeOnHost) -> None:
    """It is said, with status 0: the end is what was wanted."""
    done = node.run("unban", "198.51.100.7")
    assert done.status == 0
    assert done.out == "198.51.100.7 was not banned\n"
    assert done.err == ""
    assert node.run("unban", "198.51.100.7", "--json").json["not_banned"] == ["198.51.100.7"]


def test_unban_of_a_list(node: NodeOnHost) -> None:
    """A list goes in one change; a bad line keeps all of it from being done."""
    text = "\n".join(f"198.51.100.{number}" for number in range(1, 21))
    node.run("ban", "-", given=text)
    done = node.run("unban", "-", given=text + "\nnonsense\n")
    assert done.status == 1
    assert "line 21" in done.err
    assert node.store.count("local") == 20
    done = node.run("unban", "-", given=text + "\n192.0.2.99\n")
    assert done.status == 0
    assert "20 unbanned" in done.out
    assert "192.0.2.99 was not banned" in done.out
    assert node.store.count("local") == 0


def test_unban_of_who_is_saved_already(node: NodeOnHost) -> None:
    """No entry is added beside one for good."""
    node.feed_lists("198.51.100.7")
    node.run("allow", "add", "198.51.100.7", "--reason", "office")
    done = node.run("unban", "198.51.100.7", "--json")
    assert done.json["saved"][0]["network"] == "198.51.100.7"
    assert len(node.store.allow_list()) == 1


def test_unban_of_everybody(node: NodeOnHost) -> None:
    """It would empty the list: it is refused, status 1."""
    node.run("ban", "198.51.100.7")
    assert node.run("unban", "0.0.0.0/0", "--wide").status == 1
    assert node.run("unban", "198.0.0.0/8").status == 1
    assert node.store.count("local") == 1


# By programs -----------------------------------------------------------------------------------


def test_program_ends_what_it_set_alone(node: NodeOnHost) -> None:
    """Not what the feed, the detector or another reason bans; and nobody is allowed."""
    now = node.clock.now()
    node.feed_lists("198.51.100.7")
    node.store.ban(networks(["198.51.100.7"]), source=DETECTOR, reason="", expires=now + 9, now=now)
    node.run("ban", "198.51.100.7", "--reason", "jail")
    node.run("ban", "198.51.100.8", "--reason", "by hand")
    words = ("unban", "198.51.100.7", "198.51.100.8", "--automatic", "--reason", "jail")
    told = node.run(*words, "--json").json
    assert [(one["network"], one["source"]) for one in told["unbanned"]] == [
        ("198.51.100.7", "local")
    ]
    assert sorted((one["network"], one["source"]) for one in told["still_banned"]) == [
        ("198.51.100.7", "apiban"),
        ("198.51.100.7", "detector"),
        ("198.51.100.8", "local"),
    ]
    assert told["allowed"] == []
    assert node.store.allow_list() == []
    assert {one.source for one in node.store.find(parse_network("198.51.100.7"))} == {
        "apiban",
        DETECTOR,
    }
    assert "198.51.100.8 stays banned (local)" in node.run(*words).out
    assert node.run("check", "198.51.100.8").status == 3


def test_program_needs_no_reason(node: NodeOnHost) -> None:
    """Then it ends each ban of the operator's; a time is no use to it."""
    node.run("ban", "198.51.100.7", "--reason", "jail")
    assert node.run("unban", "198.51.100.7", "--automatic", "--for", "1h").status == 2
    assert node.run("unban", "198.51.100.7", "--automatic").status == 0
    assert node.run("check", "198.51.100.7").status == 0
