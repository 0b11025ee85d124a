"""Writes the sync's report when it is due, and another one than before; keeps the settings."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from apiban.alive import is_alive
from apiban.clock import Clock
from apiban.settings import Settings
from apiban.store import Store
from apiban.sync.report import SyncReport, keep_settings, read_report, write_report

__all__ = ["Reporter"]

_EVERY: Final = 1.0
_SOON: Final = 0.2
_LASTS: Final = 60.0  # an unchanged report is written again after that


class Reporter:
    """The report of one process, and the counts in it that cost a look at the store."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._from = 0.0  # the uptime from which a report is due
        self._soon = 0.0  # and from which one is that tells of another list
        self._generation = 0
        self._last: SyncReport | None = None
        self._kept: Settings | None = None
        self._entries: dict[str, int] = {}
        self._counted_at = (-1, -1)

    def is_due(self, generation: int) -> bool:
        """Tell whether it is time; from then on it is not, for a second, while the list stays.

        Who waits for a list to be published, and has no board to look at, looks at the report.
        """
        now = self._clock.uptime()
        if now < (self._from if generation == self._generation else self._soon):
            return False
        self._from, self._soon, self._generation = now + _EVERY, now + _SOON, generation
        return True

    def write(self, path: Path, report: SyncReport) -> None:
        """Write it, if it says anything new or the last one is old."""
        last = self._last
        fresh = last is not None and abs(report.at - last.at) < _LASTS
        if last is not None and fresh and replace(report, at=last.at) == last:
            return
        if write_report(path, report):
            self._last = report

    def keep(self, path: Path, settings: Settings) -> None:
        """Keep the settings for others, when they are new or somebody took the file away."""
        if (settings != self._kept or not path.exists()) and keep_settings(path, settings):
            self._kept = settings

    @staticmethod
    def other_reports(path: Path) -> bool:
        """Tell whether the process that syncs, which is another one, reports in the same place."""
        report = read_report(path)
        if report is None or report.pid == os.getpid():
            return False
        return is_alive(report.pid)

    def recount(self) -> None:
        """Count anew at the next report: entries went of which the list does not tell."""
        self._counted_at = (-1, -1)

    def entries(self, store: Store | None, generation: int) -> dict[str, int]:
        """Count each source's entries, when anything may have changed their number."""
        if store is not None and self._counted_at != (store.saved, generation):
            self._counted_at = (store.saved, generation)
            self._entries = store.count_by_source()
        return self._entries
