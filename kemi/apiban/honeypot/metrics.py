"""The honeypot's numbers for Prometheus, pushed by the rtimer process as the node's are.

``kamailio/apiban-metrics.cfg`` declares each metric, docs/metrics.md tells what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from apiban.clock import Clock
from apiban.gate import Board
from apiban.honeypot.counts import last_report, total
from apiban.honeypot.queue import ROWS
from apiban.kemi.metrics import Pusher
from apiban.numbers import Gauge
from apiban.sqlite import glance

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["HoneypotMetrics"]


class HoneypotMetrics:
    """Pushes a honeypot's numbers; ``tick()`` is for the rtimer process alone."""

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        ksr: Ksr,
        *,
        board: Board,
        clock: Clock,
        queue: Path,
        reporter_runs: Callable[[], bool],
        previous: HoneypotMetrics | None = None,
    ) -> None:
        """Take the honeypot's parts; ``previous`` is what a reload replaces in this process."""
        self._board = board
        self._queue = queue
        self._reporter_runs = reporter_runs
        self.pusher: Pusher = Pusher(ksr, clock, None if previous is None else previous.pusher)

    def tick(self) -> None:
        """Push what there is, if it is time."""
        if not self.pusher.is_due():
            return
        counts = total(self._board)
        gauges = [
            Gauge("apiban_honeypot_reporter_running", self._reporter_runs()),
            Gauge("apiban_honeypot_last_report_timestamp_seconds", last_report(self._board)),
        ]
        waiting = glance(self._queue, ROWS)
        if waiting is not None:  # else the last number stays
            gauges.append(Gauge("apiban_honeypot_queue_rows", waiting[0]))
        self.pusher.push(
            {
                "apiban_honeypot_sightings_total": counts.sightings,
                "apiban_honeypot_unproven_messages_total": counts.unproven,
                "apiban_honeypot_unproven_not_kept_total": counts.not_kept,
                "apiban_honeypot_answers_total": counts.answers,
                "apiban_honeypot_withheld_answers_total": counts.silent,
                "apiban_honeypot_unwritten_sightings_total": counts.unwritten,
                "apiban_honeypot_faults_total": counts.faults,
            },
            gauges,
        )
