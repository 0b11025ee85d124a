import fcntl
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from apiban.cli.follow import Standing, Walk
from apiban.errors import FeedOutage
from apiban.snapshot import load_snapshot
from apiban.snapshot.publish import durable_path
from apiban.store import FEED_SOURCE, LOCAL, Store
from apiban.sync.report import SyncReport, report_path

from tests.support.api import KEY, Api
from tests.support.node import wait_for
from tests.support.reports import sync_report
from tests.unit.cli.node import NodeOnHost, networks

ADDRESSES = [f"198.51.100.{number}" for number in range(1, 101)]


@contextmanager
def _time_goes_on(node: NodeOnHost) -> Iterator[None]:
    """Let a second of the node's clock pass in a twentieth of one."""
    end = threading.Event()

    def run() -> None:
        while not end.wait(0.02):
            node.clock.tick(0.4)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@pytest.fixture(autouse=True)
def _short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apiban.cli.sync._TICK", 0.02)


# By the running sync process -------------------------------------------------------------------


def test_asks_the_running_process(node: NodeOnHost) -> None:
    """The list is complete when the command ends, long before the next poll."""
    node.write_settings(feed="interval = 86400\nrequests = 1000\nreconcile_every = 2592000")
    node.feed.add(*ADDRESSES)
    with node.syncing(), _time_goes_on(node):
        assert node.run("sync").status == 0
        node.feed.add("203.0.113.1")
        node.clock.tick(1)
        done = node.run("sync")
        assert done.status == 0
        assert "the list is complete: 101 addresses" in done.out
        assert "in force" in done.out
        assert node.store.find(networks(["203.0.113.1"])[0])


def test_full_removes_what_the_feed_lists_no_more(node: NodeOnHost) -> None:
    """A pass from the start is made and waited for."""
    node.write_settings(feed="interval = 86400\nrequests = 1000\nreconcile_every = 2592000")
    node.feed.add(*ADDRESSES)
    with node.syncing(), _time_goes_on(node):
        assert node.run("sync", "--full").status == 0
        node.feed.remove(*ADDRESSES[:9])
        node.clock.tick(1)
        done = node.run("sync", "--full", "--json")
        assert done.status == 0
        assert done.json["complete"] is True
        assert done.json["entries"] == node.store.count(FEED_SOURCE) == 91


def test_no_wait_leaves_a_task(node: NodeOnHost) -> None:
    """It is asked, and the command ends at once."""
    node.sync_reports()
    with (node.state / "sync.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = node.run("sync", "--full", "--no-wait", "--json").json
    assert (said["complete"], said["asked"], said["entries"]) == (False, True, None)
    assert [task.name for task in node.store.open_tasks()] == ["full-pass"]


def test_a_pause_is_kept_unless_now(node: NodeOnHost) -> None:
    """A feed that failed is left alone until its pause is over, or the operator says now."""
    node.write_settings(feed="requests = 1000")
    node.feed.add(*ADDRESSES)
    with node.syncing(), _time_goes_on(node):
        node.feed.error = FeedOutage("the feed answered with status 500")
        done = node.run("sync")
        assert done.status == 1
        assert "status 500" in done.err
        assert done.err.count("\n") == 1
    node.sync_reports(feed="outage", error="status 500", next_request_at=node.clock.now() + 500)
    with (node.state / "sync.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = len(node.store.open_tasks())
        done = node.run("sync")
        assert done.status == 1
        assert "--now" in done.err
        assert len(node.store.open_tasks()) == before
        assert node.run("sync", "--now", "--no-wait").status == 0
        assert len(node.store.open_tasks()) == before + 1


def test_a_pause_that_the_feed_asked_for_is_kept(node: NodeOnHost) -> None:
    """Nothing shortens it."""
    node.sync_reports(feed="rate-limited", error="too many", next_request_at=node.clock.now() + 500)
    with (node.state / "sync.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = node.run("sync", "--now")
    assert done.status == 1
    assert "in 8 min" in done.err
    assert node.store.open_tasks() == []


def test_without_a_key(node: NodeOnHost) -> None:
    """One line says what to set."""
    node.write_settings(key="")
    done = node.run("sync")
    assert done.status == 1
    assert "feed.key" in done.err


# As the sync process ---------------------------------------------------------------------------


@pytest.fixture
def api(node: NodeOnHost) -> Iterator[Api]:
    """Give an API over HTTP that the settings name; the node has no sync process."""
    made = Api(ADDRESSES)
    feed = f'url = "{made.url}"\nrequests = 1000\ninterval = 1'
    node.write_settings(key=KEY, feed=feed)
    yield made
    made.stop()


def test_is_the_sync_process_where_none_runs(node: NodeOnHost, api: Api) -> None:
    """It loads the list, publishes it for the next start, and leaves neither lock nor report."""
    node.run("ban", "203.0.113.7")
    with _time_goes_on(node):
        done = node.run("sync")
    assert done.status == 0, done.err
    assert "this command is it" in done.out
    assert "complete: 100 addresses" in done.out
    snapshot = load_snapshot(durable_path(node.state))
    assert snapshot.expires(ADDRESSES[0])
    assert snapshot.expires("203.0.113.7")
    assert not report_path(node.runtime).exists()
    with (node.state / "sync.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_is_the_sync_process_without_a_runtime_folder(node: NodeOnHost, api: Api) -> None:
    """A host without Kamailio has none; it is made, or done without."""
    node.runtime.rmdir()
    with _time_goes_on(node):
        done = node.run("sync", "--full", "--json")
    assert done.status == 0, done.err
    assert done.json["entries"] == 100


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("failing", "500"),
        ("garbage", "invalid"),
        ("unauthorized", "key"),
        ("limited", "rate-limited"),
    ],
)
def test_trouble_with_the_feed(node: NodeOnHost, api: Api, mode: str, said: str) -> None:
    """One clear line, status 1; the list is kept, and the next try works."""
    with _time_goes_on(node):
        assert node.run("sync").status == 0
        api.mode = mode
        node.clock.tick(1)
        done = node.run("sync")
        assert done.status == 1
        assert done.err.count("\n") == 1
        assert said in done.err
        assert "the last list stays in force" in done.err
        assert node.store.count(FEED_SOURCE) == 100
        assert load_snapshot(durable_path(node.state)).expires(ADDRESSES[0])


def test_no_wait_without_a_sync_process(node: NodeOnHost) -> None:
    """Nobody would do it: that is said."""
    done = node.run("sync", "--no-wait")
    assert done.status == 1
    assert node.store.open_tasks() == []


def test_bans_meanwhile_are_kept(node: NodeOnHost, api: Api) -> None:
    """What another process writes while this one syncs is in the list that it leaves."""
    api.delay = 0.1
    written = threading.Event()

    def write() -> None:
        wait_for(lambda: api.requests, "a first request")
        with Store(node.state / "store.db") as store:
            store.ban(networks(["203.0.113.7"]), source=LOCAL, reason="", expires=4e9, now=1.0)
        written.set()

    other = threading.Thread(target=write)
    other.start()
    with _time_goes_on(node):
        done = node.run("sync")
    other.join()
    assert done.status == 0
    assert written.is_set()
    assert load_snapshot(durable_path(node.state)).expires("203.0.113.7")


# What is said of a walk ------------------------------------------------------------------------

NOW = 1_800_000_000.0
REPORT = sync_report(
    pid=1,
    at=NOW,
    next_request_at=NOW,
    budget_left=3,
    entries=900,
    complete_at=NOW - 50,
    pass_number=2,
    pass_ended=NOW - 50,
    position=1,
)


def _look(
    report: SyncReport | None, *, full: bool = False, before: SyncReport = REPORT
) -> Standing:
    walk = Walk(full=full, asked=NOW, length=900, before=before)
    return walk.look(report, taken=True, now=NOW)


def test_walk_is_done_when_the_list_was_complete_since() -> None:
    """A plain sync waits for a complete answer, a full one for a pass."""
    complete = replace(REPORT, complete_at=NOW + 1)
    assert _look(REPORT).state == "working"
    assert _look(complete).state == "done"
    assert _look(complete, full=True).state == "working"
    assert _look(replace(complete, pass_ended=NOW + 1), full=True).state == "done"


def test_walk_shows_how_far_it_is() -> None:
    """A pass counts what it met, of as many as the list has."""
    standing = _look(replace(REPORT, pass_started=NOW, pass_seen=250), full=True)
    assert (standing.seen, standing.total) == (250, 900)
    assert "250 addresses" in standing.text


def test_walk_says_that_the_budget_makes_it_wait() -> None:
    """With the seconds that it takes."""
    standing = _look(replace(REPORT, budget_left=0, next_request_at=NOW + 37))
    assert standing.state == "waiting"
    assert "5 requests in 2 min" in standing.text
    assert "37 s" in standing.text


def test_report_that_has_nothing_new_to_say_is_not_written_again() -> None:
    """One of before the question still tells that the budget is spent; trouble must be newer."""
    old = replace(REPORT, at=NOW - 30, budget_left=0, next_request_at=NOW + 37)
    walk = Walk(full=False, asked=NOW, length=None, before=old)
    for later in (0, 20, 30):
        assert walk.look(old, taken=True, now=NOW + later).state == "waiting"
    failed = replace(old, feed="outage", error="status 500")
    assert walk.look(failed, taken=True, now=NOW + 30).state == "waiting"
    assert walk.look(replace(failed, at=NOW + 30), taken=True, now=NOW + 30).state == "failed"


def test_old_trouble_is_not_todays() -> None:
    """A feed that was ill before is asked first; its answer counts."""
    ill = replace(REPORT, feed="outage", error="status 500")
    assert _look(ill, before=ill).state == "working"
    failed = replace(ill, next_request_at=NOW + 20)
    assert _look(failed, before=ill).state == "failed"
    waits = replace(failed, budget_left=0)
    walk = Walk(full=False, asked=NOW, length=None, before=ill)
    assert walk.look(waits, taken=True, now=NOW).state == "waiting"
    assert walk.look(waits, taken=True, now=NOW + 121).state == "failed"


def test_walk_that_is_held_fails() -> None:
    """Growth beyond the settings' is said, with the way on."""
    standing = _look(replace(REPORT, held_back="growth-held", waiting=250))
    assert standing.state == "failed"
    assert "250 new entries" in standing.text
    assert "feed hold show" in standing.text


def test_who_syncs_is_said() -> None:
    """A running process that has not reported yet is not this command."""
    running = Walk(full=False, asked=NOW, length=None, before=None)
    assert "waiting for" in running.look(None, taken=False, now=NOW).text
    own = Walk(full=False, asked=NOW, length=None, own=True)
    assert "this command" in own.look(None, taken=False, now=NOW).text


def test_sync_process_that_does_not_answer() -> None:
    """It is waited for, but not for ever."""
    walk = Walk(full=False, asked=NOW, length=None, before=REPORT)
    assert walk.look(None, taken=False, now=NOW + 1).state == "waiting"
    assert walk.look(None, taken=False, now=NOW + 20).state == "failed"
    walk = Walk(full=False, asked=NOW - 60, length=None, begun=NOW)  # the one before ended
    assert walk.look(None, taken=False, now=NOW + 1).state == "waiting"


def test_key_of_the_process_that_syncs_is_enough(
    node: NodeOnHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have the key from an environment that the command has not."""
    with node.syncing():
        node.write_settings(key="")
        monkeypatch.setattr("apiban.cli.sync.somebody_syncs", lambda _: True)
        done = node.run("sync", "--no-wait")
        assert done.status == 0
        assert "asked" in done.out


# Beside another one ----------------------------------------------------------------------------


def _start() -> subprocess.Popen[str]:
    """Start the command in a process of its own; the settings are in the environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "apiban.cli", "sync", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("together", [False, True])
def test_two_at_once(node: NodeOnHost, api: Api, *, together: bool) -> None:
    """The second goes on where the first ends, whether it came a moment later or with it."""
    api.delay = 0.8
    began = time.monotonic()
    first = _start()
    try:
        if not together:
            wait_for(lambda: api.requests, "the first one's request")
        second = _start()
        try:
            said = [one.communicate(timeout=30) for one in (first, second)]
        finally:
            second.kill()
    finally:
        first.kill()
    assert [first.returncode, second.returncode] == [0, 0], said
    assert [json.loads(out)["entries"] for out, _ in said] == [100, 100]
    assert time.monotonic() - began < 14
    with (node.state / "sync.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_goes_on_when_the_other_one_was_killed(node: NodeOnHost, api: Api) -> None:
    """Its lock is free then, and nothing else tells."""
    api.delay = 30
    first = _start()
    try:
        wait_for(lambda: api.requests, "the first one's request")
        second = _start()
        wait_for(node.store.open_tasks, "the second one's task")
        api.delay = 0
        first.kill()
        out, err = second.communicate(timeout=30)
    finally:
        for one in (first, second):
            one.kill()
            one.communicate()
    assert second.returncode == 0, err
    assert json.loads(out)["asked"] is False
