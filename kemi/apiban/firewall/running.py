"""Whether the firewall client that a report tells of still runs."""

from __future__ import annotations

from typing import Final

from apiban.alive import is_alive
from apiban.firewall.report import FirewallReport

__all__ = ["runs"]

# A client that runs writes its report every 10 seconds at least.
_LASTS: Final = 30.0


def runs(report: FirewallReport, now: float) -> bool:
    """Tell whether the client is there and writes: one that hangs does not run."""
    return is_alive(report.pid) and now - report.at < _LASTS
