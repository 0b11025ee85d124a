"""What the command line and the detector change while the sync process runs."""

import json
import os
import stat
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from apiban.address import parse_network
from apiban.errors import FeedOutage, StoreError
from apiban.settings import Mode
from apiban.snapshot import load_snapshot
from apiban.snapshot.publish import durable_path
from apiban.store import DETECTOR, FEED_SOURCE, LOCAL, Store
from apiban.sync.report import SyncReport, read_report, report_path

from tests.unit.sync.nodes import SyncNode


def _by_hand(node: SyncNode) -> Store:
    """Open the store as the command line does."""
    return Store(node.state / "store.db")


def _report(node: SyncNode) -> SyncReport:
    report = read_report(report_path(node.runtime))
    assert report is not None
    return report


def _break_store(node: SyncNode, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise StoreError("store.db: database or disk is full")

    monkeypatch.setattr(Store, "changed_outside", fail)
    monkeypatch.setattr(Store, "__init__", fail)


# What is banned and allowed --------------------------------------------------------------------


def test_ban_by_hand_is_published_at_the_next_tick(node: SyncNode) -> None:
    """And its end as well; the board tells how far in the store the list is."""
    node.run(5)
    with _by_hand(node) as other:
        now = node.clock.now()
        network = parse_network("198.51.100.0/24")
        other.ban([network], source=LOCAL, reason="", expires=now + 3600, now=now)
        assert node.board.position < other.position()
        node.run(1)
        assert node.snapshot().expires("198.51.100.9") == now + 3600
        assert node.board.position == other.position() == other.noted
        other.unban([network], sources=[LOCAL], now=now)
        node.run(1)
        assert not node.snapshot().expires("198.51.100.9")
        assert node.board.position == other.position()


def test_allowing_by_hand_is_published_at_the_next_tick(node: SyncNode) -> None:
    """Within a banned range as well."""
    node.run(5)
    with _by_hand(node) as other:
        other.allow([parse_network("192.0.2.2")], reason="", now=node.clock.now())
        node.run(1)
        assert node.banned() == {"1", "3"}
        other.unallow([parse_network("192.0.2.2")], now=node.clock.now())
        node.run(1)
        assert node.banned() == {"1", "2", "3"}


def test_command_line_that_only_looks_publishes_nothing(node: SyncNode) -> None:
    """A status every second is no new list every second."""
    node.run(5)
    generation = node.board.generation
    for _ in range(5):
        with _by_hand(node) as other:
            assert other.count(FEED_SOURCE) == 3
        node.run(1)
    assert node.board.generation == generation


def test_detectors_ban_is_an_entry_of_its_own(node: SyncNode) -> None:
    """It is published at the next tick, and ends in time."""
    node.run(5)
    network = parse_network("198.51.100.7")
    now = node.clock.now()
    node.process.ban(network, reason="10 failures", seconds=60)
    node.run(1)
    assert node.snapshot().expires("198.51.100.7") == now + 60
    with _by_hand(node) as other:
        (entry,) = other.find(network)
        assert (entry.source, entry.reason, entry.expires) == (DETECTOR, "10 failures", now + 60)
        node.run(125)
        assert other.find(network) == []
        assert other.journal(1)[0][1:] == ("expired", DETECTOR, "198.51.100.7")


def test_shorter_ban_of_the_detector_does_not_cut_a_longer_one(node: SyncNode) -> None:
    """Of two rules that a source broke in the same moment the longer ban counts."""
    node.run(5)
    network = parse_network("198.51.100.7")
    now = node.clock.now()
    for seconds in (600, 60, 300):
        node.process.ban(network, reason=f"{seconds}", seconds=seconds)
    with _by_hand(node) as other:
        assert other.find(network)[0].expires == now + 600


def test_ban_without_a_store_is_lost_and_no_fault(node: SyncNode) -> None:
    """Before the first tick, or while the store fails."""
    node.process.ban(parse_network("198.51.100.7"), reason="", seconds=60)
    node.run(5)
    assert not node.snapshot().expires("198.51.100.7")


def test_what_ended_is_tidied_without_a_new_list(node: SyncNode) -> None:
    """The workers compare the time: the list is the same without it."""
    node.run(70)
    with _by_hand(node) as other:
        now = node.clock.now()
        other.ban([parse_network("::1")], source=LOCAL, reason="", expires=now + 5, now=now)
        node.run(3)
        assert _report(node).local == 1
        generation = node.board.generation
        node.run(120)
        assert other.count(LOCAL) == 0
        assert _report(node).local == 0
    assert node.board.generation == generation


# Tasks -----------------------------------------------------------------------------------------


def test_task_is_taken_at_the_next_tick(node: SyncNode) -> None:
    """The feed is asked at once, and who asked can see that it was taken."""
    node.run(150)
    node.feed.add("192.0.2.77")
    with _by_hand(node) as other:
        number = other.add_task("sync", now=node.clock.now())
        node.run(3)
        assert other.task_taken(number)
    assert node.snapshot().expires("192.0.2.77")


def test_full_pass_by_task(node: SyncNode) -> None:
    """It begins at the next tick."""
    node.run(150)
    with _by_hand(node) as other:
        other.add_task("full-pass", now=node.clock.now())
        node.run(3)
        assert other.feed(FEED_SOURCE, node.feeds[-1].identity).pass_number == 2


def test_hold_is_accepted_by_task(node: SyncNode) -> None:
    """What the feed does not list any more is gone at the next tick."""
    node.run(5)
    node.feed.remove("192.0.2.1", "192.0.2.2", "192.0.2.3")
    node.clock.tick(86400)
    node.run(5)
    assert _report(node).held == 1
    assert node.banned() == {"1", "2", "3"}
    with _by_hand(node) as other:
        other.add_task("accept-hold", now=node.clock.now())
    node.run(2)
    assert node.banned() == set()
    assert _report(node).held == 0


def test_task_of_when_no_sync_ran_is_not_done_long_after(node: SyncNode) -> None:
    """What was accepted then may not be what is held now."""
    node.run(5)
    node.feed.remove("192.0.2.1", "192.0.2.2", "192.0.2.3")
    node.clock.tick(86400)
    node.run(5)
    node.process.close()
    with _by_hand(node) as other:
        number = other.add_task("accept-hold", now=node.clock.now())
    node.clock.tick(3000)
    node.process = node.make()
    node.run(5)
    assert node.banned() == {"1", "2", "3"}
    with _by_hand(node) as other:
        assert other.task_taken(number)


def test_task_that_the_store_failed_at_is_done_when_it_is_back(
    node: SyncNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken before it is done."""
    node.run(5)
    node.feed.remove("192.0.2.1", "192.0.2.2", "192.0.2.3")
    node.clock.tick(86400)
    node.run(5)
    real = Store.remove_unseen

    def fail(*_: object, **__: object) -> int:
        raise StoreError("store.db: database is locked")

    monkeypatch.setattr(Store, "remove_unseen", fail)
    with _by_hand(node) as other:
        number = other.add_task("accept-hold", now=node.clock.now())
        node.run(3)
        assert not other.task_taken(number)
        monkeypatch.setattr(Store, "remove_unseen", real)
        node.run(10)
        assert other.task_taken(number)
    assert node.banned() == set()


# The operator's mode ---------------------------------------------------------------------------


def _set_mode(node: SyncNode, mode: Mode | None, seconds: float | None = None) -> None:
    now = node.clock.now()
    with _by_hand(node) as other:
        other.set_mode(mode, now=now, expires=None if seconds is None else now + seconds)


def test_operators_mode_is_in_force_at_the_next_tick(node: SyncNode) -> None:
    """In the workers' list and the durable one; taken back, the settings' is again."""
    node.run(5)
    _set_mode(node, Mode.SHADOW)
    node.run(1)
    assert node.snapshot().mode is Mode.SHADOW
    assert load_snapshot(durable_path(node.state)).mode is Mode.SHADOW
    assert _report(node).override == "shadow"
    _set_mode(node, None)
    node.run(1)
    assert node.snapshot().mode is Mode.ENFORCE
    assert node.log.fields("mode") == [
        {"mode": Mode.SHADOW, "was": Mode.ENFORCE},
        {"mode": Mode.ENFORCE, "was": Mode.SHADOW},
    ]


def test_operators_mode_ends_in_time(node: SyncNode) -> None:
    """At its end, to the tick."""
    node.run(5)
    _set_mode(node, Mode.OFF, seconds=60)
    node.run(60)
    assert node.snapshot().mode is Mode.OFF
    node.run(1)
    assert node.snapshot().mode is Mode.ENFORCE


def test_operators_mode_ends_with_a_change_of_the_settings(node: SyncNode) -> None:
    """The last word is in force; going back in the settings does not bring it back."""
    node.run(5)
    _set_mode(node, Mode.OFF)
    node.run(2)
    node.write(mode="shadow")
    node.run(2)
    assert node.snapshot().mode is Mode.SHADOW
    node.write(mode="enforce")
    node.run(2)
    assert node.snapshot().mode is Mode.ENFORCE
    with _by_hand(node) as other:
        assert other.mode(node.clock.now()) is None


def test_other_settings_do_not_end_the_operators_mode(node: SyncNode) -> None:
    """Only a change of the mode does."""
    node.run(5)
    _set_mode(node, Mode.OFF)
    node.run(2)
    node.write(allow__networks=["192.0.2.1"])
    node.run(2)
    assert node.snapshot().mode is Mode.OFF
    assert node.banned() == {"2", "3"}


def test_operators_mode_survives_a_restart(node: SyncNode) -> None:
    """No list in another mode is published in between."""
    node.run(5)
    _set_mode(node, Mode.OFF)
    node.run(2)
    node.process.close()
    said = len(node.log.entries)
    node.process = node.make()
    for _ in range(5):
        node.run(1)
        assert node.snapshot().mode is Mode.OFF
    modes = {fields["mode"] for name, fields in node.log.entries[said:] if name == "published"}
    assert modes == {Mode.OFF}


def test_change_of_the_settings_while_nothing_ran_ends_the_operators_mode(node: SyncNode) -> None:
    """The settings had the last word."""
    node.run(5)
    _set_mode(node, Mode.OFF)
    node.run(2)
    node.process.close()
    node.write(mode="shadow")
    node.process = node.make()
    node.run(1)
    assert node.snapshot().mode is Mode.SHADOW


def test_operators_mode_set_after_a_change_while_nothing_ran_counts(node: SyncNode) -> None:
    """The operator had the last word."""
    node.run(5)
    node.process.close()
    node.write(mode="shadow")
    with _by_hand(node) as other:
        other.set_mode(Mode.OFF, now=node.clock.now(), over=Mode.SHADOW)
    node.process = node.make()
    node.run(3)
    assert node.snapshot().mode is Mode.OFF


def test_operators_mode_stays_in_force_while_the_store_fails(
    node: SyncNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other settings are published in it, it ends in time, and the settings can end it."""
    node.run(5)
    _set_mode(node, Mode.SHADOW, seconds=600)
    node.run(2)
    _break_store(node, monkeypatch)
    node.write(allow__networks=["192.0.2.1"])
    node.run(20)
    assert node.snapshot().mode is Mode.SHADOW
    assert node.banned() == {"2", "3"}
    node.run(600)
    assert node.snapshot().mode is Mode.ENFORCE


def test_settings_end_the_operators_mode_without_the_store(
    node: SyncNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emergency switch works whatever was said at the command line before."""
    node.run(5)
    _set_mode(node, Mode.SHADOW)
    node.run(2)
    _break_store(node, monkeypatch)
    node.run(2)
    node.write(mode="off")
    node.run(20)
    assert node.snapshot().mode is Mode.OFF
    monkeypatch.undo()
    node.run(70)
    assert node.snapshot().mode is Mode.OFF
    with _by_hand(node) as other:
        assert other.mode(node.clock.now()) is None


def test_operators_mode_is_read_at_the_start_though_the_store_cannot_be_written(
    node: SyncNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full does not turn a node that was turned off back on."""
    node.run(5)
    _set_mode(node, Mode.OFF)
    node.run(2)
    node.process.close()
    _break_store(node, monkeypatch)
    node.process = node.make()
    node.run(5)
    assert node.snapshot().mode is Mode.OFF


# The report ------------------------------------------------------------------------------------


def test_report_tells_where_the_sync_stands(node: SyncNode) -> None:
    """What the command line shows comes from here."""
    node.run(5)
    report = _report(node)
    assert report.pid == os.getpid()
    assert (report.feed, report.error) == ("ok", "")
    assert (report.entries, report.pass_number, report.pass_seen) == (3, 1, 3)
    assert report.pass_started is None
    assert report.pass_ended is not None
    assert report.complete_at is not None
    assert (report.budget, report.window) == (5, 120.0)
    assert report.budget_left < 5
    assert report.next_request_at is not None
    assert node.clock.now() < report.next_request_at <= node.clock.now() + 120
    assert report.position == node.board.position > 0
    assert (report.store_error, report.settings_error, report.held_back) == ("", "", "")
    assert stat.S_IMODE(report_path(node.runtime).stat().st_mode) & 0o007 == 0


def test_report_is_written_once_a_second_at_most(
    node: SyncNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ticks there are; without a change once a minute, to show that we live.

    A list that was published is told of at once: who has no board waits for that.
    """
    written: list[float] = []
    lists: list[int] = []

    def write(_: Path, report: SyncReport) -> bool:
        written.append(report.at)
        lists.append(node.board.generation)
        return True

    monkeypatch.setattr("apiban.sync.reporter.write_report", write)
    for tick in range(50):
        if tick == 33:
            networks = [parse_network("192.0.2.77")]
            now = node.clock.now()
            with _by_hand(node) as store:
                store.ban(networks, source=LOCAL, reason="", expires=now + 900, now=now)
        before = node.board.generation
        node.process.tick()
        if tick >= 33 and node.board.generation != before:
            assert lists[-1] == node.board.generation
        node.clock.tick(0.2)
    assert 1 <= len(written) <= 12
    assert len(set(lists)) >= 2
    assert all(
        later - earlier >= 1 or one != other
        for (earlier, later), (one, other) in zip(pairwise(written), pairwise(lists), strict=True)
    )
    node.write(feed__interval=86400)
    node.run(400)
    written.clear()
    node.run(600)
    assert 9 <= len(written) <= 12


def test_report_is_written_on_when_the_clock_is_set_back(node: SyncNode) -> None:
    """A report from the future would look alive for hours after our end."""
    node.write(feed__key="")  # nothing else changes then
    node.run(200)
    node.clock.set_wall(node.clock.now() - 7200)
    node.run(3)
    assert _report(node).at <= node.clock.now()


def test_report_tells_of_trouble(node: SyncNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the feed, the settings, and the store; and of its end."""
    node.run(5)
    node.feed.error = FeedOutage("the feed is down")
    node.write(mode="no-such-mode")
    node.run(150)
    report = _report(node)
    assert (report.feed, report.error) == ("outage", "the feed is down")
    assert "no-such-mode" in report.settings_error
    _break_store(node, monkeypatch)
    node.run(3)
    assert "disk is full" in _report(node).store_error
    monkeypatch.undo()
    node.feed.error = None
    node.write()
    node.run(1000)
    report = _report(node)
    assert (report.feed, report.error, report.settings_error) == ("ok", "", "")
    assert report.store_error == ""


def test_key_is_in_no_report(node: SyncNode) -> None:
    """Neither in its fields nor in the file."""
    node.write(feed__key="s3cret-word")
    node.run(5)
    node.write(feed__key="s3cret word")
    node.run(5)
    assert _report(node).settings_error
    assert "s3cret" not in report_path(node.runtime).read_text(encoding="utf-8")


def test_process_that_waits_for_the_lock_leaves_the_others_report(node: SyncNode) -> None:
    """Two write no report in turns; one whose writer has died is written over."""
    node.run(5)
    path = report_path(node.runtime)
    other = json.loads(path.read_text(encoding="utf-8"))
    second = node.make()
    for pid, ours in ((os.getppid(), False), (2**22 + 1, True)):
        path.write_text(json.dumps({**other, "pid": pid}), encoding="utf-8")
        second.tick()
        assert (_report(node).pid == os.getpid()) is ours
        node.clock.tick(2)
    assert "another process syncs" in _report(node).store_error
    second.close()


# The mode, and races for it ----------------------------------------------------------------------


def test_mode_set_while_a_list_is_published_is_not_lost(
    node: SyncNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it said to be in the list that was begun before."""
    node.run(5)
    real = Store.next_allow_end

    def set_mode_then(self: Store, now: float) -> float | None:
        found = real(self, now)
        monkeypatch.setattr(Store, "next_allow_end", real)
        _set_mode(node, Mode.OFF)
        return found

    with _by_hand(node) as other:
        now = node.clock.now()
        other.ban([parse_network("::1")], source=LOCAL, reason="", expires=now + 9, now=now)
        monkeypatch.setattr(Store, "next_allow_end", set_mode_then)  # read when it is published
        node.run(1)
        assert node.snapshot().mode is Mode.ENFORCE
        assert node.board.position < other.position()
        node.run(1)
        assert node.snapshot().mode is Mode.OFF
        assert node.board.position == other.position()


def test_operators_mode_set_from_another_environment_stays(node: SyncNode) -> None:
    """What the command line takes for the settings' mode is not what counts; a restart neither."""
    node.write(mode="shadow")
    node.run(5)
    with _by_hand(node) as other:
        other.set_mode(Mode.OFF, now=node.clock.now(), over=Mode.ENFORCE)
        node.run(3)
        assert node.snapshot().mode is Mode.OFF
    node.process.close()
    node.process = node.make()
    node.run(3)
    assert node.snapshot().mode is Mode.OFF


def test_operators_mode_set_right_after_a_change_of_the_settings_stays(node: SyncNode) -> None:
    """Also when the sync sees that change last; the next one ends it."""
    node.run(5)
    with _by_hand(node) as other:
        other.set_mode(Mode.OFF, now=node.clock.now(), over=Mode.SHADOW)
    node.run(1)
    node.write(mode="shadow")
    node.run(3)
    assert node.snapshot().mode is Mode.OFF
    node.write(mode="enforce")
    node.run(3)
    assert node.snapshot().mode is Mode.ENFORCE


def test_what_was_tidied_is_known_to_the_list(node: SyncNode) -> None:
    """The report says so, and the next change of others is published all the same."""
    node.run(70)
    with _by_hand(node) as other:
        now = node.clock.now()
        other.ban([parse_network("::1")], source=LOCAL, reason="", expires=now + 5, now=now)
        other.allow([parse_network("::2")], reason="", expires=now + 5, now=now)
        node.run(130)
        assert other.count(LOCAL) == 0
        assert other.allow_list() == []
        assert node.board.position < other.position()
        assert _report(node).position == other.position()
        other.allow([parse_network("192.0.2.2")], reason="", now=now)
        node.run(2)
        assert node.banned() == {"1", "3"}
        assert node.board.position == _report(node).position == other.position()


def test_report_names_the_stores_file(node: SyncNode) -> None:
    """So that a command can tell whether it has the same one."""
    node.run(5)
    assert _report(node).store == (node.state / "store.db").stat().st_ino
