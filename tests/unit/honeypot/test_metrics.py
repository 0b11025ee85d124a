"""The honeypot's numbers, as xhttp_prom is given them."""

from __future__ import annotations

from pathlib import Path

import pytest
from apiban.gate import Board
from apiban.gate.board import FAULTS
from apiban.honeypot.counts import (
    ANSWERS,
    NOT_KEPT,
    SIGHTINGS,
    SILENT,
    UNPROVEN,
    UNWRITTEN,
    set_last_report,
)
from apiban.honeypot.metrics import HoneypotMetrics
from apiban.honeypot.queue import Queue

from tests.support.clock import ManualClock
from tests.support.prom import Prom, declared
from tests.unit.honeypot.parts import sighting


class World:
    """Metrics over a board and a queue of the test's."""

    def __init__(self, folder: Path) -> None:
        self.prom = Prom()
        self.clock = ManualClock()
        self.board = Board.unnamed(now=0)
        self.queue = folder / "queue.db"
        self.runs = True
        self.metrics = self.make()

    def make(self, previous: HoneypotMetrics | None = None) -> HoneypotMetrics:
        """Put them together, as a node does."""
        return HoneypotMetrics(
            self.prom.ksr,
            board=self.board,
            clock=self.clock,
            queue=self.queue,
            reporter_runs=lambda: self.runs,
            previous=previous,
        )

    def count(self, rank: int, word: int, number: int) -> None:
        """Let a worker count."""
        self.board.words[self.board.take_slot(rank, 4711) + word] += number

    def tick(self) -> None:
        """Let a second pass, and tick."""
        self.clock.tick(1.0)
        self.metrics.tick()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Give a honeypot without a queue."""
    return World(tmp_path)


def test_counters_are_the_sums_of_all_workers(world: World) -> None:
    """Each kind under its name, also over a reload."""
    kinds = (SIGHTINGS, UNPROVEN, NOT_KEPT, ANSWERS, SILENT, UNWRITTEN, FAULTS)
    for rank in (1, 2):
        for number, kind in enumerate(kinds):
            world.count(rank, kind, 10**number)
    world.tick()
    world.metrics = world.make(previous=world.metrics)
    world.tick()
    assert list(world.prom.counters.items()) == [
        ("apiban_honeypot_sightings_total", 2),
        ("apiban_honeypot_unproven_messages_total", 20),
        ("apiban_honeypot_unproven_not_kept_total", 200),
        ("apiban_honeypot_answers_total", 2000),
        ("apiban_honeypot_withheld_answers_total", 20000),
        ("apiban_honeypot_unwritten_sightings_total", 200000),
        ("apiban_honeypot_faults_total", 2000000),
    ]


def test_queue_and_report(world: World) -> None:
    """The rows that wait, when the feed last took some, and whether the reporter is there."""
    with Queue(world.queue) as queue:
        for host in range(3):
            queue.add(sighting(f"10.0.0.{host}"), max_rows=10)
        world.tick()
        gauges = world.prom.gauges
        assert gauges["apiban_honeypot_queue_rows"] == 3
        assert gauges["apiban_honeypot_last_report_timestamp_seconds"] == 0
        assert gauges["apiban_honeypot_reporter_running"] == 1
        queue.settle(queue.take(2), [])
        set_last_report(world.board, 1_800_000_007.5)
        world.runs = False
        world.tick()
    assert gauges["apiban_honeypot_queue_rows"] == 1
    assert gauges["apiban_honeypot_last_report_timestamp_seconds"] == 1_800_000_007
    assert gauges["apiban_honeypot_reporter_running"] == 0


def test_queue_that_is_gone_leaves_the_rest(world: World) -> None:
    """It is not made in its place."""
    world.count(1, SIGHTINGS, 4)
    world.tick()
    assert world.prom.counters["apiban_honeypot_sightings_total"] == 4
    assert "apiban_honeypot_queue_rows" not in world.prom.gauges
    assert not world.queue.exists()


def test_all_that_is_pushed_is_declared(world: World) -> None:
    """Else xhttp_prom refuses it."""
    Queue(world.queue).close()
    world.tick()
    ours = {n: kind for n, kind in declared().items() if n.startswith("apiban_honeypot_")}
    assert world.prom.types() == ours
