"""Writes the firewall client's report when it is due, and takes it away at a clean end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from apiban.clock import Clock
from apiban.firewall.report import FirewallReport, remove_report, report_path, write_report
from apiban.firewall.trouble import Troubles

__all__ = ["Reporter"]

_EVERY: Final = 1.0
_NEWS_EVERY: Final = 0.2
_AT_LEAST: Final = 5.0


class Reporter:
    """The report of one client. What cannot be written is said once, and tried again."""

    def __init__(self, clock: Clock, troubles: Troubles) -> None:
        self._clock = clock
        self._troubles = troubles
        self._last: FirewallReport | None = None
        self._written = 0.0  # the uptime of that one
        self._news: tuple[object, ...] = ()
        # Uptimes from which a report is due, and one that has news.
        self._from = 0.0
        self._news_from = 0.0

    @property
    def has_written(self) -> bool:
        """Whether the report that is there is this client's."""
        return self._last is not None

    def is_due(self, news: tuple[object, ...]) -> bool:
        """Tell whether it is time: once a second, at once for news, which commands wait for."""
        uptime = self._clock.uptime()
        if uptime < (self._from if news == self._news else self._news_from):
            return False
        self._news = news
        self._from, self._news_from = uptime + _EVERY, uptime + _NEWS_EVERY
        return True

    def write(self, runtime: Path, report: FirewallReport) -> None:
        """Write it, if it says anything new or the last one is old."""
        last = self._last
        same = last is not None and replace(last, at=report.at) == report
        # Not by the time in it: after a backward jump of the clock none would come for so long.
        uptime = self._clock.uptime()
        if same and uptime - self._written < _AT_LEAST:
            return
        try:
            write_report(report_path(runtime), report)
        except OSError as error:
            self._fails(runtime, error, "the command line does not see this client")
            return
        self._troubles.over("report")
        self._last, self._written = report, uptime

    def write_last(self, runtime: Path, report: FirewallReport) -> None:
        """Write that of an end, after which the kernel keeps what it holds."""
        try:
            write_report(report_path(runtime), report)
        except OSError as error:
            self._fails(runtime, error, "it is told that this client was killed")

    def remove(self, runtime: Path) -> None:
        """Take it away: nothing of ours is in the kernel, and nobody is to wait for us."""
        try:
            remove_report(runtime)
        except OSError as error:
            self._fails(runtime, error, "it says what the kernel held, and nothing is held")

    def _fails(self, runtime: Path, error: OSError, effect: str) -> None:
        self._troubles.tell("report", f"{report_path(runtime)}: {error.strerror}", effect=effect)
