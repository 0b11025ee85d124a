"""How ``apiban firewall`` shows a plan and the firewall's standing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import click

from apiban.address import Network
from apiban.cli.firewall_state import Standing
from apiban.cli.force import how_long, or_null
from apiban.cli.show import Sheet, ago, many, printable, rate
from apiban.cli.words import when
from apiban.firewall.elements import Block, Change
from apiban.firewall.interfaces import absent
from apiban.firewall.rules import Rules

__all__ = ["plan_document", "say_plan", "say_status", "status_document"]

_SHOWN: Final = 20
_FLOODING_SHOWN: Final = 10


def _text(block: Block) -> str:
    return str(Network(*block))


# A plan ----------------------------------------------------------------------------------------


def say_plan(change: Change, rules: Rules, *, now: float) -> None:
    """Show a plan: numbers, and some blocks of each kind."""
    if not change:
        click.echo("nothing to change")
        return
    if change.rebuild:
        what = "drop" if rules.drops else "count"
        click.echo(f"rules and sets are made, to {what} at {', '.join(rules.hooks)}")
    _say_blocks("add", change.add, [how_long(one, now) for one in change.add.values()])
    _say_blocks(
        "change the end of", change.extend, [how_long(e, now) for e in change.extend.values()]
    )
    _say_blocks("remove", change.remove)
    _say_blocks("allow", change.allow)
    _say_blocks("allow no more", change.disallow)


def _say_blocks(verb: str, blocks: Iterable[Block], ends: Iterable[str] = ()) -> None:
    every = list(blocks)
    if not every:
        return
    click.echo(f"{verb} {many(len(every), 'block')}:")
    texts = list(ends) or [""] * len(every)
    for block, end in list(zip(every, texts, strict=True))[:_SHOWN]:
        click.echo(f"  {_text(block)} {end}".rstrip())
    if len(every) > _SHOWN:
        click.echo(f"  and {len(every) - _SHOWN:,} more (--json has all)")


def plan_document(change: Change, rules: Rules) -> dict[str, Any]:
    """Give a plan for machines."""
    return {
        "rebuild": change.rebuild,
        "drops": rules.drops,
        "add": {_text(block): or_null(end) for block, end in change.add.items()},
        "extend": {_text(block): or_null(end) for block, end in change.extend.items()},
        "remove": sorted(map(_text, change.remove)),
        "allow": sorted(map(_text, change.allow)),
        "disallow": sorted(map(_text, change.disallow)),
    }


# The standing ----------------------------------------------------------------------------------


def say_status(found: Standing) -> None:
    """Show it to people."""
    sheet, report = Sheet(), found.report
    if found.trouble:
        sheet.head(f"! {printable(found.trouble)}", style="bold red")
    if found.differs and found.held is not None and found.wanted is not None:
        sheet.head(
            f"! the kernel holds {sum(found.held):,} of the list's {sum(found.wanted):,} blocks",
            style="bold red",
        )
    if found.runs and report is not None:
        began = ago(report.started, found.now)
        sheet.add(f"runs, process {report.pid}, started {began}", label="client")
    elif report is not None and report.stopped:
        text = f"stopped at {when(report.at)} UTC; what is in the kernel runs out by itself"
        sheet.add(text, label="client", style="yellow")
    else:
        last = (
            "" if report is None else f"; the last one said something {ago(report.at, found.now)}"
        )
        kept = "what is in the kernel stays until its bans run out"
        sheet.add(f"none runs{last}: {kept}", label="client", style="yellow")
    sheet.add(f"{found.backend}, mode {found.mode}, sources {found.sources}", label="works by")
    sheet.add(_rules(found.rules))
    for name in absent(found.rules.interfaces):
        sheet.add(f"there is no interface {name}: nothing is dropped there", style="yellow")
    sheet.add(_blocks("not known: ask as root", found.held), label="in kernel")
    if found.wanted is not None:
        sheet.add(_blocks("", found.wanted), label="wanted")
    if found.runs and report is not None:
        _say_report(sheet, found)
    sheet.write()


def _rules(rules: Rules) -> str:
    """Say which packets of a listed source meet the rules."""
    ports = ", ".join(map(str, rules.ports)) or "all ports"
    by = ", ".join(rules.interfaces) or "all interfaces"
    kept = "goes on" if rules.established == "keep" else "is dropped too"
    return f"at {', '.join(rules.hooks)}: {ports}, by {by}; what is established {kept}"


def _blocks(unknown: str, found: tuple[int, int] | None) -> str:
    if found is None:
        return unknown
    return f"{many(found[0], 'IPv4 block')}, {many(found[1], 'IPv6 block')}"


def _say_report(sheet: Sheet, found: Standing) -> None:
    report = found.report
    assert report is not None  # noqa: S101 - the client runs
    verb = "dropped" if report.mode == "enforce" else "would drop"
    packets, size = report.dropped_ipv4 + report.dropped_ipv6, report.bytes_ipv4 + report.bytes_ipv6
    sheet.add(
        f"{many(packets, 'packet')} ({size:,} bytes), {rate(report.dropped_per_second)} a second",
        label=verb,
    )
    changed = ago(report.changed_at, found.now)
    checked, following = ago(report.checked_at, found.now), "-"
    if report.checked_at is not None:
        following = ago(max(report.checked_at + found.interval, found.now), found.now)
    sheet.add(f"changed {changed}; looked at {checked}, again {following}", label="kernel")
    if report.healed:
        times = many(report.healed, "time")
        sheet.add(f"others took out or changed what is ours: mended {times}", label="healed")
    if report.cut:
        sheet.add(f"{many(report.cut, 'connection')} of banned sources", label="cut off")
    for label, one in zip(("flooding", *[""] * _FLOODING_SHOWN), report.flooding, strict=False):
        until = how_long(one.until, found.now)
        sheet.add(f"{one.source}, {rate(one.rate)} a second, {until}", label=label)
    if len(report.flooding) > _FLOODING_SHOWN:
        sheet.add(f"and {len(report.flooding) - _FLOODING_SHOWN:,} more")


def status_document(found: Standing) -> dict[str, Any]:
    """Give it for machines; what is not known is null."""
    report = found.report if found.runs else None
    return {
        "at": found.now,
        "runs": found.runs,
        "stopped": found.report is not None and found.report.stopped,
        "pid": None if report is None else report.pid,
        "backend": found.backend,
        "mode": found.mode,
        "sources": found.sources,
        "rules": {
            "hooks": list(found.rules.hooks),
            "ports": [str(port) for port in found.rules.ports],
            "interfaces": list(found.rules.interfaces),
            "established": found.rules.established,
        },
        "held": _families(found.held),
        "wanted": _families(found.wanted),
        "generation": None if report is None else report.generation or None,
        "packets": None
        if report is None
        else {
            "since": report.started,
            "ipv4": report.dropped_ipv4,
            "ipv6": report.dropped_ipv6,
            "bytes_ipv4": report.bytes_ipv4,
            "bytes_ipv6": report.bytes_ipv6,
            "per_second": report.dropped_per_second,
        },
        "changed_at": None if report is None else report.changed_at,
        "checked_at": None if report is None else report.checked_at,
        "healed": None if report is None else report.healed,
        "cut": None if report is None else report.cut,
        "flooding": None
        if report is None
        else [
            {"source": one.source, "per_second": one.rate, "until": one.until}
            for one in report.flooding
        ],
        "trouble": found.trouble,
    }


def _families(found: tuple[int, int] | None) -> dict[str, int] | None:
    return None if found is None else {"ipv4": found[0], "ipv6": found[1]}
