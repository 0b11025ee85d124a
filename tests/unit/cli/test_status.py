"""``apiban status``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from apiban.settings import Mode
from apiban.store import DETECTOR, LOCAL
from apiban.sync.good import GoodSources
from rich.cells import cell_len

from tests.unit.cli.node import DAY, NodeOnHost, networks

LISTED = "198.51.100.7"
HOUR = 3600.0


@pytest.fixture
def running(node: NodeOnHost) -> NodeOnHost:
    """Give a node for which all is well."""
    node.feed_lists(LISTED, "2001:db8::7")
    node.kamailio_starts(workers=2)
    node.publish()
    node.worker(1)
    node.worker(2)
    node.sync_reports()
    return node


def document(node: NodeOnHost, *options: str) -> dict[str, Any]:
    """Give the status for machines."""
    done = node.run("status", "--json", *(options or ("--no-wait",)))
    assert done.status == 0
    told = done.json
    assert isinstance(told, dict)
    return told


def warnings(node: NodeOnHost, *options: str) -> dict[str, str]:
    """Give the warnings' texts by their codes."""
    told = document(node, *options)["warnings"]
    return {one["code"]: one["text"] for one in told}


@pytest.fixture
def meanwhile(
    running: NodeOnHost, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], object]], None]:
    """Give a way to let something happen in the second between the two looks."""

    def set_up(happens: Callable[[], object]) -> None:
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            if not slept:
                happens()
            slept.append(seconds)
            running.clock.tick(seconds)

        monkeypatch.setattr("apiban.cli.status.time.sleep", sleep)

    return set_up


def test_a_node_for_which_all_is_well(running: NodeOnHost) -> None:
    """There is no warning, and what an operator asks for is there."""
    running.worker(1, dropped=1200, passed=30)
    running.worker(2, dropped=34, passed=4)
    running.clock.tick(80)
    told = document(running)
    assert told["warnings"] == []
    assert told["mode"] == {"mode": "enforce", "set_by": "settings", "expires": None}
    began = running.clock.now() - 80
    assert told["list"] == {
        "entries": {"apiban": 2},
        "generation": 1,
        "published": began,
        "in_use": True,
        "in_kernel": False,
        "ranges_ipv4": 1,
        "ranges_ipv6": 1,
    }
    feed = told["feed"]
    assert (feed["state"], feed["complete"], feed["next_request"]) == ("ok", began, began + 60)
    assert (feed["requests_left"], feed["requests"]) == (5, 5)
    assert told["packets"]["dropped"] == 1234
    assert told["packets"]["passed"] == 34
    assert told["packets"]["dropped_by"] == {"apiban": 1234, "local": 0, "detector": 0}
    assert told["workers"] == {"count": 2, "behind": None}
    text = running.run("status", "--no-wait").out
    assert text.startswith("mode ")
    assert "2 entries: apiban 2, local 0, detector 0" in text
    assert "published 80 s ago as generation 1: 1 IPv4 and 1 IPv6 ranges" in text
    assert "1,234 since Kamailio's start" in text
    assert "5 of 5 requests left in 2 min" in text


def test_rates_are_of_the_second_between_two_looks(
    running: NodeOnHost, meanwhile: Callable[..., None]
) -> None:
    """And a worker that used the list is in step."""
    running.worker(1, dropped=1000)
    meanwhile(lambda: running.worker(1, dropped=1500, passed=20))
    told = document(running, "--wait")
    assert told["packets"]["dropped_per_second"] == 500
    assert told["packets"]["passed_per_second"] == 20
    assert told["workers"]["behind"] == 0
    assert told["warnings"] == []
    running.worker(1, dropped=1000, passed=0)
    meanwhile(lambda: running.worker(1, dropped=1500, passed=20))
    text = running.run("status").out
    assert "500 a second, 1,500 since Kamailio's start" in text
    assert "2, in step with the list" in text


def test_a_busy_worker_with_an_older_list_is_behind(
    running: NodeOnHost, meanwhile: Callable[..., None]
) -> None:
    """An idle one is not: it runs no Python."""
    running.publish()
    running.worker(1, generation=1, passed=10)
    running.worker(2, generation=1, passed=10)
    meanwhile(lambda: running.worker(1, generation=1, passed=11))
    told = document(running, "--wait")
    assert told["workers"] == {"count": 2, "behind": 1}
    assert [one["code"] for one in told["warnings"]] == ["workers-behind"]


def test_warnings_come_first(running: NodeOnHost) -> None:
    """And make a status of 1 for who asks strictly."""
    assert running.run("status", "--no-wait", "--strict").status == 0
    running.write_settings('mode = "off"')
    running.publish()
    done = running.run("status", "--no-wait", "--strict")
    assert done.status == 1
    assert done.out.startswith("WARNING ")
    assert running.run("status", "--no-wait").status == 0
    assert running.run("status", "--no-wait", "--strict", "--json").status == 1


def test_the_mode_tells_who_set_it_and_until_when(running: NodeOnHost) -> None:
    """The settings, or the operator for a time."""
    running.write_settings('mode = "shadow"')
    running.publish()
    assert "as the settings say" in warnings(running)["mode"]
    now = running.clock.now()
    running.store.set_mode(Mode.OFF, now=now, expires=now + HOUR)
    running.publish()
    running.clock.tick(60)
    told = warnings(running)["mode"]
    assert "the mode is off, set at the command line 60 s ago" in told
    assert "until 2027-01-15 09:00:00 UTC (in 59 min): nobody is dropped" in told
    assert document(running)["mode"] == {
        "mode": "off",
        "set_by": "operator",
        "expires": now + HOUR,
    }
    running.store.set_mode(Mode.ENFORCE, now=now)
    running.publish()
    assert "mode" not in warnings(running)
    assert "set at the command line 60 s ago, for good" in running.run("status", "--no-wait").out


def test_without_kamailio_and_sync_that_is_said(node: NodeOnHost) -> None:
    """And what the store knows is shown all the same."""
    node.feed_lists(LISTED)
    told = document(node)
    assert [one["code"] for one in told["warnings"]] == ["no-kamailio", "no-sync"]
    assert told["packets"] is None
    assert told["workers"] is None
    assert told["feed"]["complete"] == node.clock.now()
    assert "not published" in node.run("status", "--no-wait").out


def test_a_sync_process_that_ended_is_missed(running: NodeOnHost) -> None:
    """Its last report is of no worth."""
    running.sync_reports(pid=2**22 + 1)
    assert "no-sync" in warnings(running)
    running.sync_reports()
    running.clock.tick(120)
    assert "no-sync" in warnings(running)


@pytest.mark.parametrize("state", ["outage", "invalid", "unauthorized", "rate-limited"])
def test_a_feed_in_trouble(running: NodeOnHost, state: str) -> None:
    """With its error, and since when there was no complete answer."""
    running.clock.tick(HOUR * 3)
    running.sync_reports(feed=state, error="apiban.org: no connection")
    told = warnings(running)["feed"]
    assert told == f"feed {state}: apiban.org: no connection; last complete answer: 3 h ago"


@pytest.mark.parametrize(
    ("report", "code", "text"),
    [
        ({"feed": "no-key"}, "no-key", "no key"),
        ({"held": 2, "held_since": 1_800_000_000.0}, "pass-held", "apiban feed hold show"),
        ({"held_back": "growth-held", "waiting": 1200}, "growth-held", "1,200 new entries wait"),
        ({"held_back": "too-long"}, "too-long", "feed.max_entries"),
        ({"store_error": "store.db: disk is full"}, "store", "disk is full"),
        ({"settings_error": "mode: must be"}, "settings", "mode: must be"),
        ({"drift": "store-list"}, "drift", "store-list"),
    ],
)
def test_what_the_sync_tells(
    running: NodeOnHost, report: dict[str, Any], code: str, text: str
) -> None:
    """Each trouble has its code, and says what it is."""
    running.sync_reports(**report)
    told = warnings(running)
    assert list(told) == [code]
    assert text in told[code]


def test_a_missing_key_is_told_without_a_sync_too(running: NodeOnHost) -> None:
    """By the settings then; a sync that runs may have it from elsewhere."""
    running.write_settings(key="")
    assert "no-key" not in warnings(running)
    (running.runtime / "sync.json").unlink()
    assert "no-key" in warnings(running)


def test_a_held_pass_is_told_without_a_sync_too(node: NodeOnHost) -> None:
    """The store knows of it."""
    node.save_feed(held=1, held_since=node.clock.now() - HOUR)
    assert "(60 min ago): apiban feed hold show" in warnings(node)["pass-held"]


def test_a_stale_list_is_told(running: NodeOnHost) -> None:
    """Entries that the feed should have renewed; while it answers, the next poll may do so."""
    running.clock.tick(7 * DAY + 200)
    running.sync_reports()
    assert "stale" not in warnings(running)
    running.sync_reports(feed="outage", error="x")
    assert "2 entries of the feed over time" in warnings(running)["stale"]
    running.clock.tick(60)
    running.sync_reports()
    assert "stale" in warnings(running)


def test_a_change_that_is_not_published_is_told(
    running: NodeOnHost, meanwhile: Callable[..., None]
) -> None:
    """When it is not after a second; one that is just on its way is no trouble."""
    now = running.clock.now()
    running.store.ban(
        networks(["203.0.113.9"]), source=LOCAL, reason="", expires=now + HOUR, now=now
    )
    assert warnings(running, "--no-wait") == {}
    meanwhile(lambda: None)
    told = warnings(running, "--wait")
    assert told == {"not-published": "the workers' list lacks the store's last 1 change"}
    meanwhile(running.publish)
    assert warnings(running, "--wait") == {}


def test_the_list_in_use_is_the_announced_one(running: NodeOnHost) -> None:
    """None that can be read, none at all, and one in another mode are told."""
    assert running.board is not None
    running.board.announce(2)
    assert list(warnings(running)) == ["list-unreadable"]
    running.board.announce(0)
    assert list(warnings(running)) == ["no-list"]
    running.publish()
    running.store.set_mode(Mode.SHADOW, now=running.clock.now())
    told = warnings(running)["not-published"]
    assert told == "the workers' list is in mode enforce, not shadow"


def test_a_fault_just_now_is_told(running: NodeOnHost, meanwhile: Callable[..., None]) -> None:
    """One of yesterday is counted, and is no warning."""
    running.worker(1, faults=3)
    meanwhile(lambda: None)
    assert warnings(running, "--wait") == {}
    assert "3 packets let through since then" in running.run("status").out
    meanwhile(lambda: running.worker(1, faults=5))
    assert "let 2 packets through" in warnings(running, "--wait")["faults"]


def test_a_first_pass_shows_its_progress(node: NodeOnHost) -> None:
    """The feed has not come to its end yet."""
    node.kamailio_starts()
    node.publish()
    now = node.clock.now()
    node.sync_reports(pass_started=now - 90, pass_seen=1250, entries=1250)
    text = node.run("status", "--no-wait").out
    assert "last complete answer never" in text
    assert "the first full pass began 90 s ago, 1,250 entries so far" in text


def test_drops_are_told_by_the_source_of_the_ban(running: NodeOnHost) -> None:
    """Every source of entries is counted, also one of tomorrow."""
    now = running.clock.now()
    for source in (LOCAL, DETECTOR, "partner"):
        running.store.ban(
            networks(["203.0.113.9"]), source=source, reason="", expires=now + HOUR, now=now
        )
    assert document(running)["list"]["entries"] == {
        "apiban": 2,
        "local": 1,
        "detector": 1,
        "partner": 1,
    }
    assert (
        "5 entries: apiban 2, local 1, detector 1, partner 1"
        in running.run("status", "--no-wait").out
    )


def test_without_a_store_the_rest_is_told(running: NodeOnHost) -> None:
    """What is wrong is a warning."""
    done = running.run("--state", str(running.folder), "status", "--no-wait", "--json")
    assert done.status == 0
    told = done.json
    assert "store" in [one["code"] for one in told["warnings"]]
    assert told["list"]["entries"] is None
    assert told["packets"] is not None


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_on_a_terminal_no_line_is_longer_than_it(
    running: NodeOnHost, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Long texts go on below themselves."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("apiban.cli.show.terminal", lambda: True)
    running.sync_reports(feed="outage", error="word " * 60)
    lines = running.run("status", "--no-wait").out.splitlines()
    assert max(map(cell_len, lines)) <= columns
    assert max(map(cell_len, lines)) > columns - 10
    assert lines[1].startswith(" " * 12 + "word")


def test_shadow_names_listed_sources_that_call(running: NodeOnHost) -> None:
    """In shadow alone: in the other modes nobody asks for it."""
    good = GoodSources()
    now = running.clock.now()
    good.note(running.runtime, "192.0.2.7", "registered", now - 60)
    good.note(running.runtime, "192.0.2.7", "called", now - 30)
    running.publish()
    assert "good-sources" not in warnings(running)
    running.write_settings('mode = "shadow"')
    running.publish()
    told = warnings(running)["good-sources"]
    assert told.startswith("1 listed source registered or called with success: 192.0.2.7 called")


def test_what_ended_is_not_lacking_in_the_list(running: NodeOnHost) -> None:
    """The sync tidied it, which is no other list; of another store nothing can be said at all."""
    running.store.add_task("sync", now=running.clock.now())
    assert running.board is not None
    position = running.store.position()
    assert running.board.position < position
    assert "not-published" in _codes(running)
    running.sync_reports(position=position)
    assert _codes(running) == []
    running.sync_reports(store=1)
    assert _codes(running) == ["store"]


def _codes(node: NodeOnHost) -> list[str]:
    return [one["code"] for one in document(node, "--wait")["warnings"]]


def test_mode_though_the_store_cannot_be_written(
    running: NodeOnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what is in force, not what the settings say."""
    running.store.set_mode(Mode.OFF, now=running.clock.now())
    monkeypatch.setattr("os.access", lambda *_: False)
    told = document(running)
    assert told["list"]["entries"] is None
    assert told["mode"]["mode"] == "off"


def test_sync_process_that_hangs_is_told(running: NodeOnHost) -> None:
    """Its report may be a minute old when all is well; its ticks may not."""
    board = running.board
    assert board is not None
    assert "sync-silent" not in warnings(running)  # it says nothing on the board yet
    board.beat(running.clock.uptime())
    running.clock.tick(9)
    assert "sync-silent" not in warnings(running)
    running.clock.tick(3)
    assert "took no tick for 12 s" in warnings(running)["sync-silent"]
    board.beat(running.clock.uptime())
    assert "sync-silent" not in warnings(running)
