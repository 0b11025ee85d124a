"""What the firewall client says of the kernel, as the commands show it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from apiban.address import Network
from apiban.cli.host import Host
from apiban.cli.show import ago, many, rate
from apiban.cli.words import when
from apiban.firewall.report import LARGEST_FLOODING, FirewallReport, Flooding
from apiban.snapshot import Snapshot
from apiban.snapshot.format import FOREVER

__all__ = ["Kernel", "kernel"]

_NAMED: Final = 5
_NOT_SHOWN: Final = ("started", "at", "changed_at", "checked_at", "position", "kept_until")


@dataclass(frozen=True, slots=True)
class Kernel:
    """The last report of a firewall client, and whether that still runs."""

    report: FirewallReport
    runs: bool

    @property
    def has_all(self) -> bool:
        """Whether all that is banned is in the kernel, and is dropped there."""
        return self.runs and self.report.sources == "all" and self.report.mode == "enforce"

    def holds(self, list_: Snapshot) -> bool:
        """Tell whether a published list is the one that the client keeps the kernel to."""
        same = self.report.generation == list_.generation
        return self.runs and self.report.sources == "all" and same

    @property
    def dropped(self) -> int:
        """The packets that met the kernel's list since the client's start."""
        return self.report.dropped_ipv4 + self.report.dropped_ipv6

    def flooding(self, address: Network) -> Flooding | None:
        """Give what is known of an address that is in the kernel since it floods."""
        found = (one for one in self.report.flooding if one.source == str(address))
        return next(found, None)

    @property
    def names_all(self) -> bool:
        """Whether the report had room for every flooding source."""
        return len(self.report.flooding) < LARGEST_FLOODING

    def document(self) -> dict[str, Any]:
        """Give it under stable names; null is what is not known."""
        report = self.report
        told = {name: value for name, value in asdict(report).items() if name not in _NOT_SHOWN}
        return {
            "running": self.runs,
            "stopped": report.stopped,
            "at": report.at,
            "since": report.started,
            "changed": report.changed_at,
            "checked": report.checked_at,
            **told,
            "dropped_per_second": round(report.dropped_per_second, 1) if self.runs else None,
            "generation": report.generation or None,
            "flooding": [asdict(one) for one in report.flooding],
            "trouble": report.trouble or None,
        }

    def ends(self, *, lasts: float) -> str:
        """Say when a kernel is empty that nobody looks after; a feed's bans last so long."""
        report = self.report
        if report.kept_until is not None and report.kept_until < FOREVER:
            return f"by itself at {when(report.kept_until)} UTC"
        if report.sources == "all":
            until = f"the feed's bans until {when(report.at + lasts)} UTC at the latest"
            return f"by itself, {until}, a ban for good never"
        last = max((one.until for one in report.flooding), default=report.at)
        return f"by itself at {when(max(last, report.at))} UTC"

    def lines(self, now: float) -> list[str]:
        """Give its lines for people."""
        report = self.report
        what = "all that is banned" if report.sources == "all" else "who floods"
        held = f"{report.banned_ipv4:,} IPv4 and {report.banned_ipv6:,} IPv6 blocks in the kernel"
        generation = f", of generation {report.generation}" if report.generation else ""
        told = [f"{report.backend}, {report.mode}, {what}: {held}{generation}"]
        counted = "dropped" if report.mode == "enforce" else "counted"
        size = report.bytes_ipv4 + report.bytes_ipv6
        speed = f"{rate(report.dropped_per_second)} a second, " if self.runs else ""
        since = f"since {when(report.started)} UTC"
        told.append(f"{speed}{many(self.dropped, 'packet')} ({size:,} bytes) {counted} {since}")
        if report.flooding:
            named = [
                f"{one.source} ({rate(one.rate)} a second)" for one in report.flooding[:_NAMED]
            ]
            more = len(report.flooding) - len(named)
            named += [f"{more} more"] if more else []
            told.append(f"flooding: {', '.join(named)}")
        checked = f"looked at {ago(report.checked_at, now)}"
        changed = f"changed {ago(report.changed_at, now)}"
        healed = f", mended {many(report.healed, 'time')}" if report.healed else ""
        told.append(f"{checked}, {changed}{healed}")
        return told


def kernel(host: Host) -> Kernel | None:
    """Give what is known of the kernel; None where no firewall client ever ran."""
    report = host.firewall_report()
    return None if report is None else Kernel(report, runs=host.firewall() is not None)
