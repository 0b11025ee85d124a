"""What does not fit between feed, store, list and workers is found, and nothing else is."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apiban.address import Network, parse_network
from apiban.gate import Board
from apiban.gate.board import PASSED
from apiban.settings import Mode, Settings, load_settings
from apiban.settings.model import AllowSettings, PathSettings
from apiban.snapshot import load_snapshot, write_snapshot
from apiban.snapshot.publish import LastList, Publisher, encode_list, runtime_path
from apiban.store import DETECTOR, FEED_SOURCE, LOCAL, Store
from apiban.sync.drift import Drift
from apiban.sync.report import read_report, report_path

from tests.unit.sync.nodes import SyncNode as Node
from tests.unit.sync.world import DAY, World, addresses


class Watched:
    """A synced world with a publisher, a board and the check, each driven by the test."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        self.world = World(folder, **changes)
        self.board = Board.unnamed(now=0)
        defaults = load_settings(folder / "none.toml", {})
        self.settings: Settings = replace(
            defaults, feed=self.world.settings, paths=PathSettings(folder, folder)
        )
        self.own: tuple[Network, ...] = ()
        self.publisher = Publisher(self.board, self.world.log)
        self.drift = Drift(
            board=self.board,
            clock=self.world.clock,
            log=self.world.log,
            chance=random.Random(7),
        )

    @property
    def store(self) -> Store:
        """The store that the sync uses."""
        return self.world.store

    def publish(self) -> None:
        """Do what the sync process does after a change."""
        assert self.publisher.publish(
            self.store, self.settings, self.own, now=self.world.clock.now()
        )

    def look(self, seconds: float) -> tuple[str, ...]:
        """Look each second for a while; give what an alarm is on for."""
        for _ in range(int(seconds)):
            self.world.clock.tick(1)
            self.drift.look(self.store, self.world.sync, self.settings, self.own)
        return self.drift.found

    def said(self) -> list[tuple[object, object]]:
        """Give the alarms' beginnings and ends."""
        lines = self.world.log.fields("drift")
        return [(line["between"], line["state"]) for line in lines]

    def by_hand(self, *statements: str) -> None:
        """Edit the store as somebody with sqlite3 does, at whose end no journal line stands."""
        with sqlite3.connect(self.world.path) as db:
            for statement in statements:
                db.execute(statement)
        db.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """Give one with 300 of the feed's addresses, published."""
    made = Watched(tmp_path)
    made.world.load(*addresses(300))
    made.publish()
    yield made
    made.store.close()


# The normal course -----------------------------------------------------------------------------


def test_nothing_is_said_while_all_fits(watched: Watched) -> None:
    """Ranges, single addresses, both families, overlaps, bans for good and of other sources."""
    now = watched.world.clock.now()
    wide = [parse_network(text) for text in ("198.51.0.0/24", "203.0.113.0/24", "2001:db8::/32")]
    watched.store.ban(wide, source=LOCAL, reason="", expires=float(0xFFFFFFFF), now=now)
    hosts = [parse_network(text) for text in ("203.0.113.9", "2001:db8::9", "192.0.2.7")]
    watched.store.ban(hosts, source=DETECTOR, reason="", expires=now + 600.5, now=now)
    watched.publish()
    assert watched.look(300) == ()
    assert watched.said() == []


def test_allowed_inside_a_banned_range_fits(watched: Watched) -> None:
    """By settings, allow list or as an own address, at a range's first address or within."""
    now = watched.world.clock.now()
    watched.store.ban(
        [parse_network("203.0.113.0/24")], source=LOCAL, reason="", expires=now + DAY, now=now
    )
    watched.store.allow([parse_network("203.0.113.0/30")], reason="", now=now)
    watched.store.allow([parse_network("198.51.0.7")], reason="", now=now, expires=now + 60)
    watched.own = (parse_network("198.51.0.9"),)
    allowed = AllowSettings((parse_network("198.51.0.16/28"),), (), ())
    watched.settings = replace(watched.settings, allow=allowed)
    watched.publish()
    watched.look(61)
    watched.publish()  # the sync does when an entry of the allow list ends
    assert watched.look(200) == ()
    assert watched.said() == []


def test_expired_entries_in_their_grace_fit(watched: Watched) -> None:
    """They are enforced until the feed answers in full, at most for feed.stale_max."""
    watched.world.clock.tick(watched.settings.feed.ban_for + 10)
    assert watched.look(120) == ()
    watched.world.clock.tick(watched.settings.feed.stale_max - 180)
    assert watched.look(300) == ()  # over the moment at which they end in store and list
    assert watched.said() == []


def test_ended_ban_needs_no_new_list(watched: Watched) -> None:
    """It is tidied away in the store; in the list it is over all the same."""
    now = watched.world.clock.now()
    hosts = [parse_network(f"203.0.113.{n}") for n in range(0, 100, 2)]
    watched.store.ban(hosts, source=DETECTOR, reason="", expires=now + 30, now=now)
    watched.publish()
    watched.look(40)
    assert watched.store.remove_ended(feed=FEED_SOURCE, now=watched.world.clock.now()) == 50
    assert watched.look(200) == ()
    assert watched.said() == []


def test_more_changes_than_the_journal_keeps(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that ends as a whole leaves more lines than are kept: nothing is made of that."""
    monkeypatch.setattr("apiban.sync.drift._JOURNAL", 100)
    watched.look(5)
    now = watched.world.clock.now()
    watched.store.remove_expired(FEED_SOURCE, until=now + 400 * DAY, now=now)
    watched.by_hand("DELETE FROM journal WHERE id <= (SELECT max(id) FROM journal) - 50")
    watched.publish()
    assert watched.look(200) == ()
    assert watched.said() == []


def test_every_mode_fits(watched: Watched) -> None:
    """Off is a mode as the others."""
    for mode in Mode:
        watched.settings = replace(watched.settings, mode=mode)
        watched.publish()
        assert watched.look(100) == ()


def test_change_that_is_on_its_way_is_no_drift(watched: Watched) -> None:
    """Each of many changes takes 50 seconds to the list, and some are always missing."""
    now = watched.world.clock.now()
    for number in range(10):
        hosts = [parse_network(f"10.{number}.0.{n}") for n in range(50)]
        watched.store.ban(hosts, source=LOCAL, reason="", expires=now + DAY, now=now)
        watched.look(50)
        watched.publish()
    assert watched.said() == []


def test_first_load_is_no_drift(tmp_path: Path) -> None:
    """Nor is an empty store, nor what the live walk and a full pass bring and remove."""
    watched = Watched(tmp_path, reconcile_every=600.0)
    watched.publish()
    watched.look(70)
    watched.world.feed.add(*addresses(600))
    for step in range(40):
        watched.world.run(20)
        if step % 10 == 5:
            watched.world.feed.add(*addresses(20, 1000 + step * 20))
            watched.world.feed.remove(*addresses(20, step * 5))
        watched.publish()
        watched.look(20)
    assert watched.world.said("pass-end") > 1
    assert watched.said() == []
    watched.store.close()


# Store and list --------------------------------------------------------------------------------


def test_entry_that_the_list_lacks(watched: Watched) -> None:
    """Said once when it lasted for a minute, and once when it is over."""
    now = watched.world.clock.now()
    lost = [parse_network(f"203.0.113.{n}") for n in range(0, 100, 2)]
    watched.store.ban(lost, source=LOCAL, reason="", expires=now + DAY, now=now)
    assert watched.look(55) == ()
    assert watched.look(200) == ("store-list",)
    assert watched.said() == [("store-list", "begun")]
    assert str(watched.world.log.fields("drift")[0]["reason"]).startswith("203.0.113.")
    watched.publish()
    assert watched.look(2) == ()
    assert watched.said() == [("store-list", "begun"), ("store-list", "over")]


def test_one_of_many_is_found_in_time(watched: Watched) -> None:
    """A single address that the list lacks, or has too much, among 300."""
    now = watched.world.clock.now()
    watched.store.ban(
        [parse_network("198.51.0.77")], source=LOCAL, reason="", expires=now + 90 * DAY, now=now
    )
    assert watched.look(900) == ("store-list",)
    watched.publish()
    assert watched.look(2) == ()
    watched.store.unban([parse_network("198.51.0.77")], sources=[LOCAL], now=now)
    assert watched.look(900) == ("store-list",)


def test_ban_that_the_store_does_not_have_any_more(watched: Watched) -> None:
    """The list drops who is not listed: the worse way to disagree."""
    watched.store.remove_expired(
        FEED_SOURCE, until=watched.world.clock.now() + 400 * DAY, now=watched.world.clock.now()
    )
    assert watched.store.count(FEED_SOURCE) == 0
    assert watched.look(130) == ("store-list",)


def test_allowed_address_that_the_list_has(watched: Watched) -> None:
    """It would be dropped although the operator allowed it."""
    watched.store.allow([parse_network("198.51.0.0/16")], reason="", now=watched.world.clock.now())
    assert watched.look(130) == ("store-list",)


def test_announced_list_of_somebody_else(watched: Watched) -> None:
    """Whoever announces another list, the workers take it."""
    empty = LastList(load_snapshot(runtime_path(watched.folder, watched.board.generation)))
    settings = replace(watched.settings, allow=AllowSettings((parse_network("0.0.0.0/0"),), (), ()))
    content = encode_list(empty, settings, (), generation=90, now=watched.world.clock.now())
    write_snapshot(runtime_path(watched.folder, 90), content)
    watched.board.announce(90)
    assert watched.look(130) == ("store-list",)


def test_list_that_cannot_be_read(watched: Watched) -> None:
    """A generation was announced that is nowhere."""
    watched.board.announce(watched.board.generation + 5)
    assert watched.look(70) == ("store-list",)
    assert "cannot be read" in str(watched.world.log.fields("drift")[0]["reason"])


def test_list_file_edited_by_others(watched: Watched) -> None:
    """Where the workers have the list from its file alone, an edit of it is found."""
    generation = watched.board.generation
    watched.board.announce(generation)  # nobody has it in memory
    assert watched.look(70) == ()
    path = runtime_path(watched.folder, generation)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    watched.board.announce(generation)
    watched.drift = Drift(
        board=watched.board, clock=watched.world.clock, log=watched.world.log
    )  # a process that has not read it yet
    assert watched.look(70) == ("store-list",)


def test_list_in_another_mode(watched: Watched) -> None:
    """The emergency switch did not reach the workers."""
    watched.settings = replace(watched.settings, mode=Mode.OFF)
    assert watched.look(70) == ("store-list",)


def test_store_file_that_was_replaced(watched: Watched) -> None:
    """What the command line writes goes to another file than the one that is synced."""
    watched.look(5)
    copy = watched.folder / "copy.db"
    shutil.copy(watched.world.path, copy)
    copy.replace(watched.world.path)
    assert watched.look(70) == ("store-list",)
    assert "replaced" in str(watched.world.log.fields("drift")[0]["reason"])


# Feed and store --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        "DELETE FROM entry WHERE first < (SELECT max(first) FROM entry)",
        (
            "INSERT INTO entry SELECT family, x'01020304', x'01020304', source, reason,"
            " first_listed, last_listed, expires, seen_pass FROM entry LIMIT 1"
        ),
    ],
    ids=["fewer", "more"],
)
def test_store_edited_behind(watched: Watched, edit: str) -> None:
    """The feed does not list those again until the next full pass; then it is over."""
    watched.look(30)
    watched.by_hand(edit)
    watched.publish()
    assert watched.look(200) == ("feed-store",)
    watched.world.sync.ask_now(full=True)
    watched.world.until(lambda: watched.world.said("pass-end") == 2)
    assert watched.store.count(FEED_SOURCE) == 300
    watched.publish()
    assert watched.look(200) == ()
    assert watched.said() == [("feed-store", "begun"), ("feed-store", "over")]


def test_held_pass_is_drift(watched: Watched) -> None:
    """The store has what the feed lists no longer, until somebody accepts that."""
    watched.world.feed.remove(*addresses(250))
    watched.world.sync.ask_now(full=True)
    watched.world.until(lambda: watched.world.sync.state.held == 1)
    watched.publish()
    assert watched.look(70) == ("feed-store",)
    watched.world.sync.accept_hold()
    watched.publish()
    assert watched.look(200) == ()


def test_held_growth_is_drift(tmp_path: Path) -> None:
    """The feed lists what the store does not take."""
    watched = Watched(tmp_path, max_growth=0.5)
    watched.world.load(*addresses(300))
    watched.publish()
    watched.world.feed.add(*addresses(2000, 5000))
    watched.world.until(lambda: bool(watched.world.sync.held_back))
    watched.publish()
    assert watched.look(70) == ("feed-store",)
    watched.store.close()


# List and workers ------------------------------------------------------------------------------


def test_busy_worker_that_cannot_load(watched: Watched) -> None:
    """An idle one beside it is no drift."""
    board = watched.board
    slots = [board.take_slot(rank, os.getpid()) for rank in (1, 2, 3)]
    for slot in slots:
        board.use(slot, board.generation)
    watched.publish()
    board.use(slots[0], board.generation)
    for _ in range(100):
        board.words[slots[0] + PASSED] += 1
        watched.look(1)
    assert watched.said() == []
    for _ in range(70):
        board.words[slots[1] + PASSED] += 1
        watched.look(1)
    assert watched.drift.found == ("list-workers",)
    board.use(slots[1], board.generation)
    assert watched.look(1) == ()
    assert watched.said() == [("list-workers", "begun"), ("list-workers", "over")]


# In the sync process ---------------------------------------------------------------------------


def test_sync_process_looks_and_tells(tmp_path: Path) -> None:
    """Its report names what disagrees; what it mends by itself is no drift."""
    node = Node(tmp_path)
    node.write()
    node.run(10)
    path = runtime_path(node.runtime, node.board.generation)
    path.chmod(0o600)
    path.write_bytes(b"edited")  # it writes such a file anew
    node.run(100)
    report = read_report(report_path(node.runtime))
    assert report is not None
    assert (report.drift, report.entries, report.local) == ("", 3, 0)
    assert "drift" not in node.log.names()
    node.board.announce(node.board.generation + 1)
    node.run(70)
    report = read_report(report_path(node.runtime))
    assert report is not None
    assert report.drift == "store-list"
    assert len(node.log.fields("drift")) == 1
    node.process.close()
