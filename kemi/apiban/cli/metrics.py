"""``apiban metrics``: the node's numbers for Prometheus, where no Kamailio gives them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from apiban.cli.host import Host, pass_host
from apiban.cli.output import put_lines
from apiban.cli.published import published
from apiban.numbers import (
    LABELS,
    Gauge,
    firewall_counters,
    firewall_gauges,
    list_gauges,
    process_gauges,
    sync_gauges,
)
from apiban.sync.report import read_report, report_path

__all__ = ["metrics"]


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Put them whole into this file, such as one of node-exporter's textfile collector.",
)
@pass_host
def metrics(host: Host, /, *, output: Path | None) -> None:
    """Print the node's numbers for Prometheus: those of the list, the sync and the firewall.

    Kamailio's own counters are not among them: it serves those itself, and all of these too.
    """
    put_lines(_lines(host), output)


def _lines(host: Host) -> Iterator[str]:
    """Give each number's line, those of one name together below its type."""
    last = ""
    for kind, gauge in _numbers(host):
        if gauge.name != last:
            last = gauge.name
            yield f"# TYPE {last} {kind}"
        label = f'{{{LABELS[gauge.name]}="{gauge.label}"}}' if gauge.label else ""
        yield f"{gauge.name}{label} {gauge.value:.15g}"


def _numbers(host: Host) -> Iterator[tuple[str, Gauge]]:
    list_ = published(host)
    report = read_report(report_path(host.settings.paths.runtime))
    firewall = host.firewall_report()
    gauges = [Gauge("apiban_list_generation", 0 if list_ is None else list_.snapshot.generation)]
    if list_ is not None:
        snapshot = list_.snapshot
        gauges += list_gauges(snapshot.counts, snapshot.mode, snapshot.created)
    gauges.append(Gauge("apiban_sync_running", host.report() is not None))
    gauges += () if report is None or report.store_error else sync_gauges(report)
    gauges += process_gauges(report)
    gauges += firewall_gauges(firewall, host.clock.now())
    yield from (("gauge", one) for one in gauges)
    for name, value in firewall_counters(firewall).items():
        plain, label = (name, "") if isinstance(name, str) else name
        yield "counter", Gauge(plain, value, label)
