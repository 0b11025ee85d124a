"""The node's numbers for Prometheus, given to Kamailio's own xhttp_prom by the rtimer process.

Once a second one process sums up what all workers counted on the board; no worker does anything for
it. ``kamailio/apiban-metrics.cfg`` declares each metric, docs/metrics.md tells what it is. Where
xhttp_prom is not loaded nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from apiban.clock import Clock
from apiban.errors import SnapshotError
from apiban.firewall import report as firewall
from apiban.gate import Board
from apiban.gate.board import FRONT, Counts
from apiban.gate.lag import Lag
from apiban.numbers import (
    Gauge,
    Name,
    firewall_counters,
    firewall_gauges,
    list_gauges,
    process_gauges,
    sync_gauges,
)
from apiban.settings import Settings
from apiban.snapshot import Snapshot
from apiban.sync.report import read_report, report_path

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["Metrics", "Pusher"]

_EVERY: Final = 1.0
_REST: Final = 60.0
_BY_ORIGIN: Final = "apiban_dropped_packets_by_origin_total"
_MOST: Final = 2**31 - 1  # what a call of KEMI can carry


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
        self.given: dict[Name, int] = {} if previous is None else dict(previous.given)

    def is_due(self) -> bool:
        """Tell whether it is time to push; from then on it is not, for a second."""
        now = self._clock.uptime()
        if not self._is_loaded or now < self._from:
            return False
        self._from = now + _EVERY
        return True

    def push(self, counters: Mapping[Name, int], gauges: Sequence[Gauge]) -> None:
        """Bring the counters to these totals, and the gauges to these values.

        What xhttp_prom does not take (no metric of this name is declared, no memory is left) it
        says in the log: so then it is left alone for a minute.
        """
        # A counter that did not grow is touched too: xhttp_prom may forget what is not used.
        taken = all(self._count(name, total) for name, total in counters.items())
        if not (taken and all(self._set(gauge) for gauge in gauges)):
            self._from = self._clock.uptime() + _REST

    def _count(self, name: Name, total: int) -> bool:
        given = self.given.get(name, 0)
        if total < given:  # who counts it has started anew: the firewall client
            given = 0
        news = min(total - given, _MOST)  # the rest follows with the next push
        prom = self._ksr.xhttp_prom
        if isinstance(name, str):
            taken = prom.counter_inc_l0(name, news)
        else:
            taken = prom.counter_inc_l1(name[0], news, name[1])
        if taken <= 0:
            return False
        self.given[name] = given + news
        return True

    def _set(self, gauge: Gauge) -> bool:
        text = f"{gauge.value:.3f}"
        if gauge.label:
            return self._ksr.xhttp_prom.gauge_set_l1(gauge.name, text, gauge.label) > 0
        return self._ksr.xhttp_prom.gauge_set_l0(gauge.name, text) > 0


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
        self._sync_gauges: tuple[Gauge, ...] = ()
        self._firewall: firewall.FirewallReport | None = None

    def tick(self) -> None:
        """Push what there is, if it is time."""
        if not self.pusher.is_due():
            return
        generation = self._board.generation
        slots = self._board.slots()
        if generation != self._list or not self._list_gauges:
            self._look_at_list(generation)
        runtime = self._settings().paths.runtime
        report = read_report(report_path(runtime))
        self._firewall = firewall.read_report(firewall.report_path(runtime)) or self._left()
        # While the store fails it tells of no feed: the last numbers stay.
        if report is not None and not report.store_error:
            self._sync_gauges = sync_gauges(report)
        total = sum((slot.counts for slot in slots), Counts(0, 0, 0, 0))
        self.pusher.push(
            {
                "apiban_dropped_packets_total": total.dropped,
                (_BY_ORIGIN, "feed"): total.dropped_feed,
                (_BY_ORIGIN, "local"): total.dropped_local,
                (_BY_ORIGIN, "detector"): total.dropped_detector,
                "apiban_would_drop_packets_total": total.would_drop,
                "apiban_passed_packets_total": total.passed,
                "apiban_faults_total": total.faults,
                **firewall_counters(self._firewall),
            },
            (
                Gauge("apiban_workers", sum(slot.rank > 0 for slot in slots)),
                Gauge("apiban_workers_behind", self._lag.behind(generation, slots)),
                Gauge("apiban_workers_lag_generations", self._lag.generations),
                Gauge("apiban_front_sources", self._board.words[FRONT]),
                Gauge("apiban_list_generation", generation),
                Gauge("apiban_sync_running", self._sync_runs()),
                *self._list_gauges,
                *self._sync_gauges,
                *process_gauges(report),
                *firewall_gauges(self._firewall, self._clock.now()),
            ),
        )

    def _left(self) -> firewall.FirewallReport | None:
        """Give what is left of a firewall client that took all out: its counts; it is not up."""
        if self._firewall is None:
            return None
        return replace(
            self._firewall, at=0.0, banned_ipv4=0, banned_ipv6=0, flooding=(), trouble=""
        )

    def _look_at_list(self, generation: int) -> None:
        """Read the new list's header; one that cannot be read leaves the last one's numbers."""
        counts, mode, created = (0, 0), self._settings().mode, 0
        if generation:
            try:
                snapshot = self._load(generation)
            except SnapshotError:
                return
            counts, mode, created = snapshot.counts, snapshot.mode, snapshot.created
        self._list = generation
        self._list_gauges = tuple(list_gauges(counts, mode, created))
