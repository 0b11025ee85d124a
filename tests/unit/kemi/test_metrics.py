"""The node's numbers, as xhttp_prom is given them."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from apiban.errors import SnapshotError
from apiban.firewall.report import report_path as firewall_path
from apiban.firewall.report import write_report as write_firewall
from apiban.gate import Board
from apiban.gate.board import (
    DROPPED,
    DROPPED_DETECTOR,
    DROPPED_LOCAL,
    FAULTS,
    FRONT,
    PASSED,
    WOULD_DROP,
    Counts,
    Slot,
)
from apiban.gate.lag import Lag
from apiban.kemi.metrics import Metrics, Pusher
from apiban.settings import Mode, Settings
from apiban.snapshot import Snapshot
from apiban.sqlite import glance
from apiban.sync.report import Health, report_path, write_report

from tests.support.clock import ManualClock
from tests.support.prom import ROOT, Prom, declared
from tests.support.reports import firewall_report, sync_report
from tests.unit.snapshot.parts import sample, settings

SOURCES = ("apiban", "local", "detector")
BY_ORIGIN = "apiban_dropped_packets_by_origin_total"


class NoProm:
    """A Kamailio without the module."""


class World:
    """Metrics over a board, a list and a store of the test's."""

    def __init__(self, folder: Path) -> None:
        self.prom = Prom()
        self.clock = ManualClock()
        self.board = Board.unnamed(now=0)
        self.settings = settings(folder, folder)
        self.report = sync_report(
            pid=4711, at=1_800_000_000.0, budget_left=3, entries=4123, pass_number=1
        )
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

    def tell(self, **changes: Any) -> None:
        """Do what the sync process does: tell of itself."""
        self.report = replace(self.report, **changes)
        assert write_report(report_path(self.settings.paths.runtime), self.report)

    def firewall(self, **values: Any) -> None:
        """Do what the firewall client does: tell of itself."""
        report = firewall_report(**{"at": self.clock.now(), **values})
        write_firewall(firewall_path(self.settings.paths.runtime), report)

    def marked(self, name: str) -> list[str]:
        """Give the values of a gauge's label that stand at 1; the others must be 0."""
        values = {key[1]: value for key, value in self.prom.gauges.items() if key[0] == name}
        assert set(values.values()) <= {0, 1}
        return [label for label, value in values.items() if value]


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
        (BY_ORIGIN, "feed"): 112,
        (BY_ORIGIN, "local"): 0,
        (BY_ORIGIN, "detector"): 0,
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
    assert len(world.prom.ksr.calls_of("xhttp_prom.counter_inc_l1")) == 2 * 3


def test_drops_by_the_origin_of_the_ban(world: World) -> None:
    """All of them together are the drops; the counters go on after a reload."""
    for word, number in ((DROPPED, 5), (DROPPED_LOCAL, 7), (DROPPED_DETECTOR, 11)):
        world.count(1, word, number)
    world.tick()
    world.count(2, DROPPED_LOCAL, 1)
    world.metrics = world.make(previous=world.metrics)
    world.tick()
    counters = world.prom.counters
    by_origin = {origin: counters[BY_ORIGIN, origin] for origin in ("feed", "local", "detector")}
    assert by_origin == {"feed": 5, "local": 8, "detector": 11}
    assert counters["apiban_dropped_packets_total"] == 24


def test_size_of_the_front(world: World) -> None:
    """How many verdicts native code answers with."""
    world.board.words[FRONT] = 17
    world.tick()
    assert world.prom.gauges["apiban_front_sources"] == 17


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
    assert world.prom.gauges["apiban_workers_lag_generations"] == 1


def test_lag_is_that_of_the_slowest_busy_worker() -> None:
    """An idle one, however old its list, is none."""
    lag = Lag()
    for packets in range(3):
        lag.behind(9, [slot(1, 8, packets), slot(2, 5, packets), slot(3, 1, 4), slot(4, 9, 7)])
    assert lag.generations == 4
    lag.behind(9, [slot(1, 9, 3), slot(2, 9, 3), slot(3, 1, 4), slot(4, 9, 7)])
    assert lag.generations == 0


# The sync --------------------------------------------------------------------------------------


def test_numbers_of_the_sync(world: World) -> None:
    """They are those that the sync process tells of itself, at most two seconds old."""
    world.tell(complete_at=1_800_000_100.25, pass_ended=1_800_000_050.0, at=1_800_000_101.0)
    world.tick()
    gauges = world.prom.gauges
    assert gauges["apiban_sync_last_success_timestamp_seconds"] == 1_800_000_100.25
    assert gauges["apiban_sync_last_full_pass_timestamp_seconds"] == 1_800_000_050.0
    assert gauges["apiban_sync_report_timestamp_seconds"] == 1_800_000_101.0
    assert gauges["apiban_sync_held_passes"] == 0
    assert gauges["apiban_sync_running"] == 1
    world.tell(complete_at=1_800_000_200.0, pass_ended=None, held=2)
    world.runs = False
    world.tick()
    assert gauges["apiban_sync_held_passes"] == 2
    assert gauges["apiban_sync_running"] == 0
    assert gauges["apiban_sync_last_full_pass_timestamp_seconds"] == 0


def test_numbers_of_the_store(world: World) -> None:
    """Entries by their source, and what waits to be taken."""
    world.tell(local=7, detector=11, held_back="growth-held", waiting=250)
    world.tick()
    gauges = world.prom.gauges
    entries = {source: gauges["apiban_list_entries", source] for source in SOURCES}
    assert entries == {"apiban": 4123, "local": 7, "detector": 11}
    assert world.marked("apiban_sync_held_back") == ["growth-held"]
    assert gauges["apiban_sync_waiting_entries"] == 250


def test_budget(world: World) -> None:
    """What is left of it, and what it is."""
    world.tell()
    world.tick()
    gauges = world.prom.gauges
    assert gauges["apiban_sync_requests_left"] == 3
    assert gauges["apiban_sync_requests_limit"] == 5


@pytest.mark.parametrize("health", get_args(Health))
def test_feed_has_one_state(world: World, health: Health) -> None:
    """That of its last answer, whichever it is."""
    world.tell(feed=health)
    world.tick()
    assert world.marked("apiban_feed_state") == [health]


def test_operators_mode(world: World) -> None:
    """None while that of the settings is in force."""
    world.tell()
    world.tick()
    assert world.marked("apiban_mode_override") == []
    world.tell(override="off")
    world.tick()
    assert world.marked("apiban_mode_override") == ["off"]


def test_drift(world: World) -> None:
    """Each pair that disagrees."""
    world.tell()
    world.tick()
    assert world.marked("apiban_drift") == []
    world.tell(drift="feed-store list-workers")
    world.tick()
    assert world.marked("apiban_drift") == ["feed-store", "list-workers"]


def test_failing_store_leaves_the_last_numbers(world: World) -> None:
    """The sync knows nothing of the feed then; that it fails shows."""
    world.tell(complete_at=6.0)
    world.tick()
    assert world.marked("apiban_sync_failing") == []
    world.tell(complete_at=None, entries=0, feed="unknown", store_error="disk is full")
    world.tick()
    gauges = world.prom.gauges
    assert gauges["apiban_sync_last_success_timestamp_seconds"] == 6
    assert gauges["apiban_list_entries", "apiban"] == 4123
    assert world.marked("apiban_sync_failing") == ["store"]
    world.tell(complete_at=7.0, feed="ok", store_error="", settings_error="mode = perhaps")
    world.tick()
    assert gauges["apiban_sync_last_success_timestamp_seconds"] == 7
    assert world.marked("apiban_sync_failing") == ["settings"]


@pytest.mark.parametrize("damage", ["missing", "garbage", "older"])
def test_report_that_cannot_be_read_leaves_the_last_numbers(world: World, damage: str) -> None:
    """And one that comes later is seen at once."""
    path = report_path(world.settings.paths.runtime)
    world.tick()
    assert "apiban_sync_held_passes" not in world.prom.gauges
    world.tell(complete_at=6.0)
    world.tick()
    path.unlink()
    if damage == "garbage":
        path.write_bytes(b"\xff{" * 5000)
    if damage == "older":
        path.write_text('{"pid": 4711, "at": 5}')
    world.count(1, DROPPED)
    world.tick()
    assert world.prom.gauges["apiban_sync_last_success_timestamp_seconds"] == 6
    assert world.prom.counters["apiban_dropped_packets_total"] == 1


def test_glance_writes_nothing(tmp_path: Path) -> None:
    """It is another process's file; a name with any character is found."""
    path = tmp_path / "a ?#%20 é.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    assert glance(path, "SELECT count(*) FROM t") == (0,)
    assert glance(path, "INSERT INTO t VALUES (1) RETURNING x") is None
    assert glance(path, "SELECT count(*) FROM t") == (0,)


# The firewall client ---------------------------------------------------------------------------


def test_firewall_that_was_removed(world: World) -> None:
    """Its client takes the report away: nothing is held, nothing wrong, and what was counted is."""
    world.firewall(banned_ipv4=12, banned_ipv6=3, dropped_ipv4=1000, trouble="no nft")
    world.tick()
    firewall_path(world.settings.paths.runtime).unlink()
    world.tick()
    gauges, counters = world.prom.gauges, world.prom.counters
    assert gauges["apiban_firewall_up"] == gauges["apiban_firewall_failing"] == 0
    assert gauges["apiban_firewall_entries", "ipv4"] == 0
    assert gauges["apiban_firewall_entries", "ipv6"] == 0
    assert counters["apiban_firewall_dropped_packets_total", "ipv4"] == 1000


def test_numbers_of_the_firewall(world: World) -> None:
    """As its report tells them; nothing where none ever ran."""
    world.tick()
    assert "apiban_firewall_up" not in world.prom.gauges
    world.firewall(
        banned_ipv4=12, banned_ipv6=3, dropped_ipv4=1000, dropped_ipv6=7, bytes_ipv4=5000,
        healed=2, cut=4, generation=9, checked_at=1_800_000_001.0, trouble="no nft",
    )  # fmt: skip
    world.tick()
    counters, gauges = world.prom.counters, world.prom.gauges
    assert counters["apiban_firewall_dropped_packets_total", "ipv4"] == 1000
    assert counters["apiban_firewall_dropped_packets_total", "ipv6"] == 7
    assert counters["apiban_firewall_dropped_bytes_total", "ipv4"] == 5000
    assert counters["apiban_firewall_healed_total"] == 2
    assert counters["apiban_firewall_cut_connections_total"] == 4
    assert gauges["apiban_firewall_entries", "ipv4"] == 12
    assert gauges["apiban_firewall_entries", "ipv6"] == 3
    assert gauges["apiban_firewall_list_generation"] == 9
    assert gauges["apiban_firewall_last_check_timestamp_seconds"] == 1_800_000_001.0
    assert (gauges["apiban_firewall_up"], gauges["apiban_firewall_failing"]) == (1, 1)


def test_counters_go_on_when_the_client_starts_anew(world: World) -> None:
    """It counts from nothing then; what it counted before stays."""
    name = ("apiban_firewall_dropped_packets_total", "ipv4")
    for dropped in (1000, 1500, 40, 60):
        world.firewall(dropped_ipv4=dropped)
        world.tick()
    assert world.prom.counters[name] == 1560


@pytest.mark.parametrize("changes", [{"pid": 2**22 + 1}, {"at": 0.0}], ids=["died", "hangs"])
def test_client_that_runs_no_more_is_not_up(world: World, changes: dict[str, Any]) -> None:
    """Its last numbers stay."""
    world.firewall(banned_ipv4=12)
    world.tick()
    assert world.prom.gauges["apiban_firewall_up"] == 1
    world.firewall(banned_ipv4=12, **changes)
    world.tick()
    assert world.prom.gauges["apiban_firewall_up"] == 0
    assert world.prom.gauges["apiban_firewall_entries", "ipv4"] == 12


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
    world.tell()
    world.firewall()
    world.board.announce(7)
    world.tick()
    ours = {n: kind for n, kind in declared().items() if not n.startswith("apiban_honeypot_")}
    assert world.prom.types() == ours
