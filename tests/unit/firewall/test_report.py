"""What the client says of itself, written and read."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from apiban.firewall.report import (
    LARGEST_FLOODING,
    FirewallReport,
    Flooding,
    read_report,
    report_path,
    write_report,
)
from apiban.firewall.reporter import Reporter
from apiban.firewall.trouble import Troubles

from tests.support.clock import ManualClock
from tests.support.log import MemoryLog

REPORT = FirewallReport(
    pid=7,
    at=2.0,
    started=1.0,
    backend="nftables",
    mode="enforce",
    sources="all",
    generation=3,
    position=4,
    banned_ipv4=5,
    banned_ipv6=6,
    dropped_ipv4=7,
    dropped_ipv6=8,
    bytes_ipv4=9,
    bytes_ipv6=10,
    dropped_per_second=1.5,
    changed_at=None,
    checked_at=2.0,
    healed=0,
    flooding=(Flooding("192.0.2.1", 120.0, 9.0),),
    trouble="",
    cut=0,
)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    """With sources that flood, as many as there may be, and for the group alone."""
    path = report_path(tmp_path)
    full = replace(REPORT, flooding=(Flooding("2001:db8::1234:5678", 1e6, 2e9),) * LARGEST_FLOODING)
    write_report(path, full)
    assert read_report(path) == full
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_clock_that_jumps_back(tmp_path: Path) -> None:
    """A report that says nothing new is written all the same each five seconds."""
    clock = ManualClock()
    reporter = Reporter(clock, Troubles(MemoryLog()))
    reporter.write(tmp_path, replace(REPORT, at=clock.now()))
    clock.set_wall(clock.now() - 3600)
    for _ in range(6):
        clock.tick(1)
        reporter.write(tmp_path, replace(REPORT, at=clock.now()))
    found = read_report(report_path(tmp_path))
    assert found is not None
    assert found.at == clock.now() - 1


def test_a_former_version_did_not_know_of_an_end(tmp_path: Path) -> None:
    """Its report is read all the same: it runs until it is upgraded."""
    path = report_path(tmp_path)
    path.write_text(json.dumps({k: v for k, v in asdict(REPORT).items() if k != "kept_until"}))
    assert read_report(path) == REPORT


@pytest.mark.parametrize(
    "change",
    [
        {"pid": "7"},
        {"pid": True},
        {"flooding": None},
        {"flooding": [{"source": "192.0.2.1"}]},
        {"flooding": [7]},
        {"changed_at": "now"},
    ],
)
def test_what_is_none(tmp_path: Path, change: dict[str, object]) -> None:
    """A report of another version, or damaged, is none; so is a missing one."""
    path = report_path(tmp_path)
    assert read_report(path) is None
    path.write_text(json.dumps({**asdict(REPORT), **change}))
    assert read_report(path) is None
    path.write_text("[]")
    assert read_report(path) is None
