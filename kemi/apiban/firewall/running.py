"""Whether the firewall client that a report tells of still runs, and what it left."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from apiban.alive import is_alive
from apiban.firewall.report import FirewallReport, read_report, report_path

__all__ = ["last_report", "runs"]

# A client that runs writes its report every few seconds, unless the kernel takes long.
_LASTS: Final = 30.0


def runs(report: FirewallReport, now: float) -> bool:
    """Tell whether the client is there and writes: one that hangs does not run."""
    return not report.stopped and is_alive(report.pid) and now - report.at < _LASTS


def last_report(runtime: Path, now: float) -> FirewallReport | None:
    """Read what a client said last; None where none ran, or nothing is left of one that ended."""
    report = read_report(report_path(runtime))
    if report is not None and report.kept_until is not None and report.kept_until <= now:
        return None
    return report
