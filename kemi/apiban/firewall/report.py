"""What the firewall client is doing, for whoever looks: ``runtime/firewall.json``.

Written by that process alone, whole and by rename. Where it is old, the client was killed or
hangs; one that is stopped says so in its last report. What the kernel held then is there still,
until its bans run out. Where it is missing, none ever ran, or all was taken out of the kernel.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from apiban.sync.document import get_document, put_document, record

__all__ = [
    "LARGEST_FLOODING",
    "FirewallReport",
    "Flooding",
    "read_report",
    "remove_report",
    "report_path",
    "write_report",
]

# More flooding sources than these are not named; they are in the kernel all the same.
LARGEST_FLOODING: Final = 100

_LARGEST: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Flooding:
    """A source that is in the kernel since it floods.

    ``rate`` is the packets a second that Kamailio dropped of it when it was last seen flooding,
    ``until`` when it goes out of the kernel if it is not seen again.
    """

    source: str
    rate: float
    until: float


@dataclass(frozen=True, slots=True)
class FirewallReport:
    """Where the firewall client stands. Times are in seconds since 1970, None where there is none.

    ``mode`` is "enforce", "shadow" or "off", ``sources`` "all" or "flooding". ``generation`` is
    that of the list which the kernel holds, ``position`` the store's journal number that this list
    knows; each is 0 while it is not known. ``banned_*`` are the blocks in the kernel; ``dropped_*``
    and ``bytes_*`` what was dropped (in shadow mode: counted) since ``started``. ``changed_at`` is
    the kernel's last change, ``checked_at`` the last look at it; ``healed`` is how often it did not
    hold any more what it should. ``cut`` is the number of connections removed. ``trouble`` is one
    line on what is wrong now, empty when nothing is. ``kept_until`` is None while the client runs;
    in the last report of one that was stopped, at ``at``, it is when the kernel ends the last ban.
    """

    pid: int
    at: float
    started: float
    backend: str
    mode: str
    sources: str
    generation: int
    position: int
    banned_ipv4: int
    banned_ipv6: int
    dropped_ipv4: int
    dropped_ipv6: int
    bytes_ipv4: int
    bytes_ipv6: int
    dropped_per_second: float
    changed_at: float | None
    checked_at: float | None
    healed: int
    flooding: tuple[Flooding, ...]
    trouble: str
    cut: int
    kept_until: float | None = None

    @property
    def stopped(self) -> bool:
        """Whether the client ended as it was told to, and left in the kernel what was there."""
        return self.kept_until is not None


def report_path(runtime: Path) -> Path:
    """Give where the report is."""
    return runtime / "firewall.json"


def write_report(path: Path, report: FirewallReport) -> None:
    """Put the report in its place.

    Raises:
        OSError: it cannot be written; what was there stays.

    """
    put_document(path, asdict(report))


def remove_report(runtime: Path) -> None:
    """Take the report away, as who took all out of the kernel does; none there is no error.

    Raises:
        OSError: it cannot be taken away.

    """
    report_path(runtime).unlink(missing_ok=True)


def read_report(path: Path) -> FirewallReport | None:
    """Read the report; None when there is none that this version can read."""
    try:
        raw = get_document(path, largest=_LARGEST)
        raw["flooding"] = tuple(record(Flooding, source) for source in raw["flooding"])
        raw.setdefault("kept_until", None)  # a former version did not write it
        return record(FirewallReport, raw)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
