"""The node's numbers for Prometheus, given to Kamailio's own xhttp_prom by the rtimer process.

Once a second one process sums up what all workers counted on the board; no worker does anything for
it. ``kamailio/apiban-metrics.cfg`` declares each metric, docs/metrics.md tells what it is. Where
xhttp_prom is not loaded nothing is done.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from apiban.clock import Clock
from apiban.errors import SnapshotError
from apiban.gate import Board
from apiban.gate.board import Slot
from apiban.settings import Mode, Settings
from apiban.snapshot import Snapshot
from apiban.store import FEED_SOURCE

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["Gauge", "Lag", "Metrics", "Pusher", "glance"]

_EVERY: Final = 1.0
_FEED_EVERY: Final = 10.0
_REST: Final = 60.0
_MOST: Final = 2**31 - 1  # what a call of KEMI can carry
_FEED: Final = "SELECT complete_at, pass_ended, held FROM feed WHERE name = ? AND identity = ?"


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that goes up and down; ``label`` is the value of its one label, if it has one."""

    name: str
    value: float
    label: str = ""


def glance(path: Path, query: str, *values: object) -> tuple[Any, ...] | None:
    """Read a row of a SQLite file of ours without waiting and writing; None if that cannot be."""
    with contextlib.suppress(sqlite3.Error):
        # A connection for each glance: the file may be replaced, and none is held over a fork.
        address = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=0)) as db:
            row: tuple[Any, ...] | None = db.execute(query, values).fetchone()
            return row
    return None


class Pusher:
    """Gives counters and gauges to xhttp_prom, which keeps them until Kamailio ends.

    ``given`` is what each counter was given so far: a reload takes it over, so that the counters
    go on.
    """

    def __init__(self, ksr: Ksr, clock: Clock, previous: Pusher | None = None) -> None:
        self._ksr = ksr
        self._clock = clock
        self._is_loaded = hasattr(ksr, "xhttp_prom")
        self._from = 0.0
        self.given: dict[str, int] = {} if previous is None else dict(previous.given)

    def is_due(self) -> bool:
        """Tell whether it is time to push; from then on it is not, for a second."""
        now = self._clock.uptime()
        if not self._is_loaded or now < self._from:
            return False
        self._from = now + _EVERY
        return True

    def push(self, counters: Mapping[str, int], gauges: Sequence[Gauge]) -> None:
        """Bring the counters to these totals, and the gauges to these values.

        What xhttp_prom does not take (no metric of this name is declared, no memory is left) it
        says in the log: so then it is left alone for a minute.
        """
        # A counter that did not grow is touched too: xhttp_prom may forget what is not used.
        taken = all(self._count(name, total) for name, total in counters.items())
        if not (taken and all(self._set(gauge) for gauge in gauges)):
            self._from = self._clock.uptime() + _REST

    def _count(self, name: str, total: int) -> bool:
        given = self.given.get(name, 0)
        news = min(total - given, _MOST)  # the rest follows with the next push
        if self._ksr.xhttp_prom.counter_inc_l0(name, news) <= 0:
            return False
        self.given[name] = given + news
        return True

    def _set(self, gauge: Gauge) -> bool:
        text = f"{gauge.value:.3f}"
        if gauge.label:
            return self._ksr.xhttp_prom.gauge_set_l1(gauge.name, text, gauge.label) > 0
        return self._ksr.xhttp_prom.gauge_set_l0(gauge.name, text) > 0


class Lag:
    """Finds the workers that use an older list though they judged a packet since the newest came.

    An idle worker runs no Python, and needs no list. The packets that count are those of the look
    before: so a worker that is just taking the list is not taken for one that does not.
    """

    def __init__(self) -> None:
        # By rank and generation of those that are older: packets at the first look and at the last.
        self._seen: dict[tuple[int, int], tuple[int, int]] = {}

    def behind(self, generation: int, slots: Sequence[Slot]) -> int:
        """Count them; ``generation`` was read before ``slots``."""
        found, seen = 0, {}
        for slot in slots:
            if slot.rank > 0 and slot.generation < generation:
                counts, key = slot.counts, (slot.rank, slot.generation)
                packets = counts.dropped + counts.would_drop + counts.passed
                first, last = self._seen.get(key, (packets, packets))
                found += last > first
                seen[key] = (first, packets)
        self._seen = seen
        return found


class Metrics:
    """Pushes a node's numbers; ``tick()`` is for the rtimer process alone."""

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        ksr: Ksr,
        *,
        board: Board,
        clock: Clock,
        settings: Callable[[], Settings],
        load: Callable[[int], Snapshot],
        sync_runs: Callable[[], bool],
        previous: Metrics | None = None,
    ) -> None:
        """Take the node's parts.

        ``load`` maps the snapshot of a generation or raises SnapshotError; ``previous`` is what a
        reload replaces in this process.
        """
        self._board = board
        self._clock = clock
        self._settings = settings
        self._load = load
        self._sync_runs = sync_runs
        self.pusher: Pusher = Pusher(ksr, clock, None if previous is None else previous.pusher)
        self._lag = Lag()
        self._list = 0  # the generation that the gauges of the list tell of
        self._list_gauges: tuple[Gauge, ...] = ()
        self._feed_from = 0.0
        self._feed_gauges: tuple[Gauge, ...] = ()

    def tick(self) -> None:
        """Push what there is, if it is time."""
        if not self.pusher.is_due():
            return
        generation = self._board.generation
        slots = self._board.slots()
        if generation != self._list or not self._list_gauges:
            self._look_at_list(generation)
        now = self._clock.uptime()
        if now >= self._feed_from and self._look_at_feed():
            self._feed_from = now + _FEED_EVERY
        self.pusher.push(
            {
                "apiban_dropped_packets_total": sum(slot.counts.dropped for slot in slots),
                "apiban_would_drop_packets_total": sum(slot.counts.would_drop for slot in slots),
                "apiban_passed_packets_total": sum(slot.counts.passed for slot in slots),
                "apiban_faults_total": sum(slot.counts.faults for slot in slots),
            },
            (
                Gauge("apiban_workers", sum(slot.rank > 0 for slot in slots)),
                Gauge("apiban_workers_behind", self._lag.behind(generation, slots)),
                Gauge("apiban_list_generation", generation),
                Gauge("apiban_sync_running", self._sync_runs()),
                *self._list_gauges,
                *self._feed_gauges,
            ),
        )

    def _look_at_list(self, generation: int) -> None:
        """Read the new list's header; one that cannot be read leaves the last one's numbers."""
        ipv4, ipv6, mode, created = 0, 0, self._settings().mode, 0
        if generation:
            try:
                snapshot = self._load(generation)
            except SnapshotError:
                return
            (ipv4, ipv6), mode, created = snapshot.counts, snapshot.mode, snapshot.created
        self._list = generation
        self._list_gauges = (
            Gauge("apiban_list_ranges", ipv4, "ipv4"),
            Gauge("apiban_list_ranges", ipv6, "ipv6"),
            Gauge("apiban_list_timestamp_seconds", created),
            *(Gauge("apiban_mode", one is mode, str(one)) for one in Mode),
        )

    def _look_at_feed(self) -> bool:
        """Read where the sync stands; what cannot be read leaves the last numbers, and is False."""
        settings = self._settings()
        path = settings.paths.state / "store.db"
        row = glance(path, _FEED, FEED_SOURCE, settings.feed.identity)
        if row is None:
            return False
        complete_at, pass_ended, held = row
        self._feed_gauges = (
            Gauge("apiban_sync_last_success_timestamp_seconds", complete_at or 0.0),
            Gauge("apiban_sync_last_full_pass_timestamp_seconds", pass_ended or 0.0),
            Gauge("apiban_sync_held_passes", held),
        )
        return True
