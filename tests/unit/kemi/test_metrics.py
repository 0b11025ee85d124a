"""The node's numbers, as xhttp_prom is given them."""

from __future__ import annotations

import re
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
from apiban.errors import SnapshotError
from apiban.gate import Board
from apiban.gate.board import DROPPED, FAULTS, PASSED, WOULD_DROP, Counts, Slot
from apiban.kemi.metrics import Lag, Metrics, Pusher, glance
from apiban.settings import Mode, Settings
from apiban.snapshot import Snapshot
from apiban.store import FEED_SOURCE, FeedState, Store

from tests.support.clock import ManualClock
from tests.support.prom import ROOT, Prom, declared
from tests.unit.snapshot.parts import sample, settings


class NoProm:
    """A Kamailio without the module."""


class World:
    """Metrics over a board, a list and a store of the test's."""

    def __init__(self, folder: Path) -> None:
        self.prom = Prom()
        self.clock = ManualClock()
        self.board = Board.unnamed(now=0)
        self.settings = settings(folder, folder)
        self.store = folder / "store.db"
        self.list: Snapshot | None = Snapshot(memoryview(sample(generation=7)))
        self.loads = 0
        self.runs = True
        self.metrics = self.make()

    def make(self, previous: Metrics | None = None) -> Metrics:
        """Put them together, as a node does."""
        return Metrics(
            self.prom.ksr,
            board=self.board,
            clock=self.clock,
            settings=self._settings,
            load=self._load,
            sync_runs=lambda: self.runs,
            previous=previous,
        )

    def _settings(self) -> Settings:
        return self.settings

    def _load(self, _generation: int) -> Snapshot:
        self.loads += 1
        if self.list is None:
            raise SnapshotError("it is gone")
        return self.list

    def count(self, rank: int, word: int, number: int = 1) -> None:
        """Let a worker count."""
        at = self.board.take_slot(rank, 4711 + rank)
        self.board.words[at + word] += number

    def tick(self, seconds: float = 1.0) -> None:
        """Let time pass, and tick."""
        self.clock.tick(seconds)
        self.metrics.tick()

    def save(self, state: FeedState) -> None:
        """Do what the sync does."""
        with Store(self.store) as store:
            store.save_feed(FEED_SOURCE, state)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a node without a store."""
    return World(tmp_path)


# The counters ----------------------------------------------------------------------------------


def test_counters_are_the_sums_of_all_workers(world: World) -> None:
    """Exactly, at each push, whatever is counted in between."""
    for rank, word, number in ((1, DROPPED, 5), (2, DROPPED, 7), (2, PASSED, 3), (3, FAULTS, 1)):
        world.count(rank, word, number)
    world.tick()
    world.count(9, DROPPED, 100)
    world.count(1, WOULD_DROP, 2)
    world.tick()
    assert world.prom.counters == {
        "apiban_dropped_packets_total": 112,
        "apiban_would_drop_packets_total": 2,
        "apiban_passed_packets_total": 3,
        "apiban_faults_total": 1,
    }
    assert world.prom.gauges["apiban_workers"] == 4


def test_pushes_come_once_a_second(world: World) -> None:
    """And not with each of the five ticks in it."""
    for _ in range(10):
        world.tick(0.2)
    assert len(world.prom.ksr.calls_of("xhttp_prom.counter_inc_l0")) == 2 * 4


def test_counter_that_did_not_grow_is_touched(world: World) -> None:
    """An xhttp_prom with a timeout would forget it."""
    world.tick()
    world.tick()
    calls = world.prom.ksr.calls_of("xhttp_prom.counter_inc_l0")
    assert calls.count(("apiban_faults_total", 0)) == 2


def test_counters_go_on_after_a_reload(world: World) -> None:
    """Nothing is counted twice, and nothing is lost."""
    world.count(1, DROPPED, 5)
    world.tick()
    world.count(1, DROPPED, 3)
    world.metrics = world.make(previous=world.metrics)
    world.tick()
    assert world.prom.counters["apiban_dropped_packets_total"] == 8


def test_more_than_a_call_can_carry_takes_several(world: World) -> None:
    """After an upgrade by a reload the first push is all that was ever counted."""
    world.count(1, DROPPED, 5_000_000_000)
    for _ in range(3):
        world.tick()
    assert world.prom.counters["apiban_dropped_packets_total"] == 5_000_000_000


def test_without_the_module_nothing_is_done(world: World) -> None:
    """Not even a look at the board."""
    pusher = Pusher(NoProm(), world.clock)  # type: ignore[arg-type]
    world.clock.tick(100)
    assert not pusher.is_due()


def test_refused_metric_is_tried_again_after_a_minute(world: World) -> None:
    """xhttp_prom writes a line each time; what it did not take is not lost."""
    world.count(1, DROPPED, 5)
    world.prom.refuses = {"apiban_dropped_packets_total"}
    for _ in range(50):
        world.tick()
    assert len(world.prom.ksr.calls_of("xhttp_prom.counter_inc_l0")) == 1
    world.prom.refuses = set()
    world.tick(60)
    assert world.prom.counters["apiban_dropped_packets_total"] == 5


def test_refused_gauge_is_tried_again_after_a_minute(world: World) -> None:
    """The same with one that has a label, and the counters are right afterwards."""
    world.count(1, DROPPED, 5)
    world.board.announce(7)
    world.prom.refuses = {"apiban_mode"}
    for _ in range(50):
        world.tick()
    assert len(world.prom.ksr.calls_of("xhttp_prom.gauge_set_l1")) == 3
    world.prom.refuses = set()
    world.tick(60)
    assert world.prom.gauges["apiban_mode", "enforce"] == 1
    assert world.prom.counters["apiban_dropped_packets_total"] == 5


# The list --------------------------------------------------------------------------------------


def test_numbers_of_the_list(world: World) -> None:
    """They come from its header, read once for each generation."""
    world.board.announce(7)
    world.tick()
    world.tick()
    assert world.loads == 1
    gauges = world.prom.gauges
    assert gauges["apiban_list_generation"] == 7
    assert (gauges["apiban_list_ranges", "ipv4"], gauges["apiban_list_ranges", "ipv6"]) == (3, 2)
    assert gauges["apiban_list_timestamp_seconds"] == 1_800_000_000
    world.list = Snapshot(memoryview(sample(generation=8, mode=Mode.SHADOW)))
    world.board.announce(8)
    world.tick()
    modes = {mode: gauges["apiban_mode", mode] for mode in ("enforce", "shadow", "off")}
    assert modes == {"enforce": 0, "shadow": 1, "off": 0}


def test_before_the_first_list(world: World) -> None:
    """There are no ranges, and the mode is the one that the settings ask for."""
    world.settings = replace(world.settings, mode=Mode.SHADOW)
    world.tick()
    assert world.loads == 0
    assert world.prom.gauges["apiban_list_ranges", "ipv4"] == 0
    assert world.prom.gauges["apiban_mode", "shadow"] == 1


def test_list_that_cannot_be_read_is_tried_again(world: World) -> None:
    """The numbers of the last one stay meanwhile, the counters go on."""
    world.board.announce(7)
    world.tick()
    world.list = None
    world.board.announce(8)
    world.count(1, DROPPED)
    world.tick()
    assert world.prom.gauges["apiban_list_ranges", "ipv4"] == 3
    assert world.prom.counters["apiban_dropped_packets_total"] == 1
    world.list = Snapshot(memoryview(sample(generation=8, mode=Mode.OFF)))
    world.tick()
    assert world.prom.gauges["apiban_mode", "off"] == 1


# Workers that are behind -----------------------------------------------------------------------


def slot(rank: int, generation: int, packets: int) -> Slot:
    """Give a worker that passed so many packets."""
    return Slot(4711, rank, generation, Counts(0, 0, packets, 0))


def test_worker_that_meets_packets_with_an_old_list_is_behind() -> None:
    """Whatever becomes of the packets, and also while newer lists come each second."""
    lag = Lag()
    assert lag.behind(2, [slot(1, 1, 10)]) == 0
    lag.behind(3, [slot(1, 1, 11)])
    assert lag.behind(4, [slot(1, 1, 11), slot(2, 4, 50)]) == 1
    assert lag.behind(4, [slot(1, 4, 12)]) == 0


def test_idle_worker_is_not_behind() -> None:
    """It runs no Python, and takes the list with its next packet."""
    lag = Lag()
    assert [lag.behind(2, [slot(1, 1, 10)]) for _ in range(10)] == [0] * 10


def test_timers_are_not_behind() -> None:
    """They meet no packet; the slot that they share counts faults."""
    lag = Lag()
    assert [lag.behind(2, [slot(0, 0, n)]) for n in range(5)] == [0] * 5


def test_worker_that_is_just_taking_the_list_is_not_behind() -> None:
    """Its generation was read before it took the list, and its count after."""
    lag = Lag()
    lag.behind(2, [slot(1, 1, 10)])
    assert lag.behind(2, [slot(1, 1, 11)]) == 0
    assert lag.behind(2, [slot(1, 2, 12)]) == 0


def test_worker_that_follows_one_list_late_begins_anew() -> None:
    """With lists in quick succession each is a new one to be behind of."""
    lag = Lag()
    for generation in range(2, 20):
        assert lag.behind(generation, [slot(1, generation - 1, generation * 10)]) == 0


def test_worker_behind_shows(world: World) -> None:
    """On the page."""
    at = world.board.take_slot(1, 4711)
    world.board.use(at, 6)
    world.board.announce(7)
    for _ in range(3):
        world.count(1, PASSED)
        world.tick()
    assert world.prom.gauges["apiban_workers_behind"] == 1


# The sync --------------------------------------------------------------------------------------


def test_numbers_of_the_sync(world: World) -> None:
    """They are those of the store, a few seconds old."""
    identity = world.settings.feed.identity
    world.save(FeedState(identity, complete_at=1_800_000_100.25, pass_ended=1_800_000_050.0))
    world.tick()
    gauges = world.prom.gauges
    assert gauges["apiban_sync_last_success_timestamp_seconds"] == 1_800_000_100.25
    assert gauges["apiban_sync_last_full_pass_timestamp_seconds"] == 1_800_000_050.0
    assert gauges["apiban_sync_held_passes"] == 0
    assert gauges["apiban_sync_running"] == 1
    world.save(FeedState(identity, complete_at=1_800_000_200.0, held=2))
    world.runs = False
    world.tick(5)
    assert gauges["apiban_sync_held_passes"] == 0
    assert gauges["apiban_sync_running"] == 0
    world.tick(5)
    assert gauges["apiban_sync_held_passes"] == 2
    assert gauges["apiban_sync_last_full_pass_timestamp_seconds"] == 0


def test_store_that_comes_later_is_seen_at_once(world: World) -> None:
    """At the first start the sync makes it; another list's state is none of ours."""
    world.tick()
    world.save(FeedState("elsewhere|v1|sip", complete_at=5.0))
    world.tick()
    assert "apiban_sync_held_passes" not in world.prom.gauges
    world.save(FeedState(world.settings.feed.identity, complete_at=6.0))
    world.tick()
    assert world.prom.gauges["apiban_sync_last_success_timestamp_seconds"] == 6


@pytest.mark.parametrize("damage", ["missing", "garbage", "locked"])
def test_store_that_cannot_be_read_leaves_the_last_numbers(world: World, damage: str) -> None:
    """Nobody waits for it, and nothing is made in its place."""
    world.save(FeedState(world.settings.feed.identity, complete_at=6.0))
    world.tick()
    holder = sqlite3.connect(world.store, isolation_level=None)
    if damage == "locked":
        holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        holder.execute("PRAGMA journal_mode=DELETE")
        holder.execute("BEGIN EXCLUSIVE")
    else:
        holder.close()
        world.store.unlink()
        if damage == "garbage":
            world.store.write_bytes(b"x" * 5000)
    world.count(1, DROPPED)
    began = time.monotonic()
    world.tick(10)
    assert time.monotonic() - began < 3
    assert world.prom.gauges["apiban_sync_last_success_timestamp_seconds"] == 6
    assert world.prom.counters["apiban_dropped_packets_total"] == 1
    assert world.store.exists() == (damage != "missing")
    holder.close()


def test_glance_writes_nothing(tmp_path: Path) -> None:
    """It is another process's file; a name with any character is found."""
    path = tmp_path / "a ?#%20 é.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    assert glance(path, "SELECT count(*) FROM t") == (0,)
    assert glance(path, "INSERT INTO t VALUES (1) RETURNING x") is None
    assert glance(path, "SELECT count(*) FROM t") == (0,)


# The declarations and the documentation --------------------------------------------------------


def test_every_metric_is_documented_with_its_type() -> None:
    """docs/metrics.md has a row for each, and no row for another."""
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(apiban_\w+)` \| (\w+) \| \S", text, re.MULTILINE)
    assert dict(rows) == declared()


def test_counters_alone_end_in_total() -> None:
    """As Prometheus' conventions want it."""
    for name, kind in declared().items():
        assert name.endswith("_total") == (kind == "counter"), name


def test_all_that_is_pushed_is_declared(world: World) -> None:
    """Else xhttp_prom refuses it."""
    world.save(FeedState(world.settings.feed.identity))
    world.board.announce(7)
    world.tick()
    ours = {n: kind for n, kind in declared().items() if not n.startswith("apiban_honeypot_")}
    assert world.prom.types() == ours
