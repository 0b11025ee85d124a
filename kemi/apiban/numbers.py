"""A node's numbers for Prometheus, as its files tell them: the list, the sync, the firewall client.

Kamailio's process gives them to xhttp_prom beside its own; ``apiban metrics`` prints them where no
Kamailio runs. docs/metrics.md tells what each is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from apiban.firewall.report import FirewallReport
from apiban.firewall.running import runs
from apiban.settings import Mode
from apiban.store import DETECTOR, FEED_SOURCE, LOCAL
from apiban.sync.report import HEALTHS, HELD_BACK, PAIRS, SyncReport

__all__ = [
    "LABELS",
    "Gauge",
    "Name",
    "firewall_counters",
    "firewall_gauges",
    "list_gauges",
    "process_gauges",
    "sync_gauges",
]

# A counter's name, with the value of its one label if it has one.
Name = str | tuple[str, str]

# What the one label is called, of those that have one.
LABELS: Final = {
    "apiban_drift": "between",
    "apiban_feed_state": "state",
    "apiban_firewall_dropped_bytes_total": "family",
    "apiban_firewall_dropped_packets_total": "family",
    "apiban_firewall_entries": "family",
    "apiban_list_entries": "source",
    "apiban_list_ranges": "family",
    "apiban_mode": "mode",
    "apiban_mode_override": "mode",
    "apiban_sync_failing": "part",
    "apiban_sync_held_back": "why",
}


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that goes up and down; ``label`` is the value of its one label, if it has one."""

    name: str
    value: float
    label: str = ""


def list_gauges(counts: tuple[int, int], mode: Mode, created: float) -> Iterator[Gauge]:
    """Give a list's ranges (IPv4, IPv6), its mode, and when it was compiled."""
    yield Gauge("apiban_list_ranges", counts[0], "ipv4")
    yield Gauge("apiban_list_ranges", counts[1], "ipv6")
    yield Gauge("apiban_list_timestamp_seconds", created)
    yield from (Gauge("apiban_mode", one is mode, str(one)) for one in Mode)


def sync_gauges(report: SyncReport) -> tuple[Gauge, ...]:
    """Give where the sync stands, and what its store holds."""
    entries = {FEED_SOURCE: report.entries, LOCAL: report.local, DETECTOR: report.detector}
    drift = report.drift.split()
    return (
        Gauge("apiban_sync_last_success_timestamp_seconds", report.complete_at or 0.0),
        Gauge("apiban_sync_last_full_pass_timestamp_seconds", report.pass_ended or 0.0),
        Gauge("apiban_sync_held_passes", report.held),
        *(Gauge("apiban_sync_held_back", one == report.held_back, one) for one in HELD_BACK),
        Gauge("apiban_sync_waiting_entries", report.waiting),
        Gauge("apiban_sync_requests_left", report.budget_left),
        Gauge("apiban_sync_requests_limit", report.budget),
        *(Gauge("apiban_feed_state", one == report.feed, one) for one in HEALTHS),
        *(Gauge("apiban_list_entries", number, source) for source, number in entries.items()),
        *(Gauge("apiban_mode_override", str(one) == report.override, str(one)) for one in Mode),
        *(Gauge("apiban_drift", pair in drift, pair) for pair in PAIRS),
    )


def process_gauges(report: SyncReport | None) -> tuple[Gauge, ...]:
    """Give how the sync process itself fares; nothing before it told of itself."""
    if report is None:
        return ()
    return (
        Gauge("apiban_sync_report_timestamp_seconds", report.at),
        Gauge("apiban_sync_failing", bool(report.store_error), "store"),
        Gauge("apiban_sync_failing", bool(report.settings_error), "settings"),
    )


def firewall_counters(report: FirewallReport | None) -> dict[Name, int]:
    """Give what the kernel met since the firewall client's start; nothing where none ever ran."""
    if report is None:
        return {}
    packets, size = "apiban_firewall_dropped_packets_total", "apiban_firewall_dropped_bytes_total"
    return {
        (packets, "ipv4"): report.dropped_ipv4,
        (packets, "ipv6"): report.dropped_ipv6,
        (size, "ipv4"): report.bytes_ipv4,
        (size, "ipv6"): report.bytes_ipv6,
        "apiban_firewall_healed_total": report.healed,
        "apiban_firewall_cut_connections_total": report.cut,
    }


def firewall_gauges(report: FirewallReport | None, now: float) -> tuple[Gauge, ...]:
    """Give how the firewall client fares; nothing where none ever ran."""
    if report is None:
        return ()
    return (
        Gauge("apiban_firewall_up", runs(report, now)),
        Gauge("apiban_firewall_failing", bool(report.trouble)),
        Gauge("apiban_firewall_entries", report.banned_ipv4, "ipv4"),
        Gauge("apiban_firewall_entries", report.banned_ipv6, "ipv6"),
        Gauge("apiban_firewall_list_generation", report.generation),
        Gauge("apiban_firewall_flooding_sources", len(report.flooding)),
        Gauge("apiban_firewall_last_check_timestamp_seconds", report.checked_at or 0.0),
        Gauge("apiban_firewall_last_change_timestamp_seconds", report.changed_at or 0.0),
    )
