"""``apiban status``: how the node is, in one page; what is wrong comes first."""

from __future__ import annotations

import time
from typing import Any, Final

import click
from click.exceptions import Exit

from apiban.cli.host import Host, pass_host
from apiban.cli.look import look
from apiban.cli.published import Published
from apiban.cli.show import Sheet, ago, many, rate, span, until_when, write_json
from apiban.cli.state import State, gather
from apiban.cli.trouble import Trouble, troubles
from apiban.cli.words import when
from apiban.gate.lag import Lag
from apiban.store import DETECTOR, FEED_SOURCE, LOCAL

__all__ = ["status"]

# After the first look; the third tells which workers used an older list at the second.
_LOOKS: Final = 2
_BETWEEN: Final = 0.5
_SOURCES: Final = (FEED_SOURCE, LOCAL, DETECTOR)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option(
    "--wait/--no-wait",
    "waits",
    default=True,
    help="Look at the counters for a second, for rates and for workers that lag behind.",
)
@click.option("--strict", is_flag=True, help="Status 1 if there is a warning: for monitoring.")
@pass_host
def status(host: Host, /, *, as_json: bool, waits: bool, strict: bool) -> None:
    """Show how the node is: warnings, mode, list, feed, drops, the firewall and workers."""
    board = host.board
    first = None if board is None else look(board, uptime=host.clock.uptime())
    state = gather(host, first)
    if first is not None and board is not None and waits:
        lag = Lag()
        lag.behind(first.generation, first.slots)
        for _ in range(_LOOKS):
            time.sleep(_BETWEEN)
            last = look(board, uptime=host.clock.uptime())
            behind = lag.behind(last.generation, last.slots)
        state = state.then(last, behind)
    found = troubles(state)
    if as_json:
        write_json(document(state, found))
    else:
        _Page(state, found).write()
    if strict and found:
        raise Exit(1)


def document(state: State, found: list[Trouble]) -> dict[str, Any]:
    """Give all of it under stable names; null is what is not known, or does not end."""
    stock, report, list_, last = state.stock, state.report, state.published, state.last
    override = state.override
    feed = report if report is not None else None if stock is None else stock.feed
    total = None if last is None else last.total
    rates = state.rates
    return {
        "at": state.now,
        "warnings": [{"code": one.code, "text": one.text} for one in found],
        "mode": {
            "mode": str(state.mode),
            "set_by": "settings" if override is None else "operator",
            "expires": None if override is None else override.expires,
        },
        "list": {
            "entries": None if stock is None else stock.sources,
            "generation": None if list_ is None else list_.snapshot.generation,
            "published": None if list_ is None else list_.snapshot.created,
            "in_use": list_ is not None and list_.in_use,
            "in_kernel": list_ is not None
            and state.kernel is not None
            and state.kernel.holds(list_.snapshot),
            "ranges_ipv4": None if list_ is None else list_.snapshot.counts[0],
            "ranges_ipv6": None if list_ is None else list_.snapshot.counts[1],
        },
        "feed": {
            "state": None if report is None else report.feed,
            "error": (report.error or None) if report is not None else None,
            "complete": None if feed is None else feed.complete_at,
            "next_request": None if report is None else report.next_request_at,
            "requests_left": None if stock is None else stock.budget_left,
            "requests": state.settings.feed.requests,
            "window": state.settings.feed.window,
            "pass_started": None if feed is None else feed.pass_started,
            "pass_ended": None if feed is None else feed.pass_ended,
            "pass_seen": None if report is None else report.pass_seen,
            "held_passes": None if feed is None else feed.held,
            "held_back": (report.held_back or None) if report is not None else None,
        },
        "packets": None
        if total is None
        else {
            "since": state.started,
            "dropped": total.dropped,
            "dropped_by": {
                FEED_SOURCE: total.dropped_feed,
                LOCAL: total.dropped_local,
                DETECTOR: total.dropped_detector,
            },
            "would_drop": total.would_drop,
            "passed": total.passed,
            "faults": total.faults,
            "dropped_per_second": None if rates is None else round(rates.dropped, 1),
            "would_drop_per_second": None if rates is None else round(rates.would_drop, 1),
            "passed_per_second": None if rates is None else round(rates.passed, 1),
        },
        "firewall": None if state.kernel is None else state.kernel.document(),
        "workers": None if last is None else {"count": len(last.workers), "behind": state.behind},
    }


class _Page:
    """The page for people."""

    def __init__(self, state: State, found: list[Trouble]) -> None:
        self._state = state
        self._found = found
        self._sheet = Sheet()

    def write(self) -> None:
        """Write it."""
        for one in self._found:
            self._sheet.add(one.text, label="WARNING", style="bold red")
        if self._found:
            self._sheet.gap()
        self._mode()
        self._list()
        self._feed()
        self._packets()
        self._firewall()
        self._workers()
        self._sheet.write()

    def _mode(self) -> None:
        state = self._state
        override = state.override
        if override is None:
            by = "as the settings say"
        else:
            end = until_when(override.expires, state.now)
            by = f"set at the command line {ago(override.added, state.now)}, "
            by += end if override.expires is None else f"until {end}"
        self._sheet.add(f"{state.mode}, {by}", label="mode")

    def _list(self) -> None:
        stock, list_, now = self._state.stock, self._state.published, self._state.now
        label = "list"
        if stock is not None:
            names = [*_SOURCES, *sorted(stock.sources.keys() - set(_SOURCES))]
            parts = ", ".join(f"{name} {stock.sources.get(name, 0):,}" for name in names)
            total = sum(stock.sources.values())
            self._sheet.add(f"{many(total, 'entry', 'entries')}: {parts}", label=label)
            label = ""
        if list_ is None:
            self._sheet.add("not published", label=label)
            return
        ipv4, ipv6 = list_.snapshot.counts
        told = f"published {ago(list_.snapshot.created, now)} as generation "
        told += f"{list_.snapshot.generation}: {ipv4:,} IPv4 and {ipv6:,} IPv6 ranges"
        self._sheet.add(f"{self._in_force_where(list_)}{told}", label=label)

    def _in_force_where(self, list_: Published) -> str:
        kernel = self._state.kernel
        if list_.in_use:
            return ""
        if kernel is not None and kernel.holds(list_.snapshot):
            return "in the kernel, "
        return "for the next start, "

    def _feed(self) -> None:
        state = self._state
        report, stock, now = state.report, state.stock, state.now
        feed = report if report is not None else None if stock is None else stock.feed
        if feed is None:
            self._sheet.add("not known", label="feed")
            return
        parts = ["not asked" if report is None else report.feed]
        parts.append(f"last complete answer {ago(feed.complete_at, now)}")
        if report is not None and report.next_request_at is not None:
            parts.append(f"next request {ago(max(report.next_request_at, now), now)}")
        self._sheet.add(", ".join(parts), label="feed")
        if stock is not None:
            budget = state.settings.feed
            left = f"{stock.budget_left} of {many(budget.requests, 'request')} left"
            self._sheet.add(f"{left} in {span(budget.window)}")
        if feed.pass_started is not None:
            seen = f", {report.pass_seen:,} entries so far" if report is not None else ""
            what = "the first full pass" if feed.pass_ended is None else "a full pass"
            self._sheet.add(f"{what} began {ago(feed.pass_started, now)}{seen}")
        elif feed.pass_ended is not None:
            self._sheet.add(f"last full pass {ago(feed.pass_ended, now)}")

    def _packets(self) -> None:
        last, rates = self._state.last, self._state.rates
        if last is None:
            return
        total = last.total
        speed = "" if rates is None else f"{rate(rates.dropped)} a second, "
        self._sheet.add(f"{speed}{total.dropped:,} since Kamailio's start", label="drops")
        by = f"{FEED_SOURCE} {total.dropped_feed:,}, {LOCAL} {total.dropped_local:,}, "
        self._sheet.add(f"by source of the ban: {by}{DETECTOR} {total.dropped_detector:,}")
        speed = "" if rates is None else f"{rate(rates.passed)} a second, "
        self._sheet.add(f"{speed}{total.passed:,} since then", label="passed")
        if total.would_drop:
            speed = "" if rates is None else f"{rate(rates.would_drop)} a second, "
            self._sheet.add(f"{speed}{total.would_drop:,} since then", label="would drop")
        if total.faults:
            told = f"{many(total.faults, 'packet')} let through since then: see the log"
            self._sheet.add(told, label="faults", style="red")

    def _firewall(self) -> None:
        kernel, label = self._state.kernel, "firewall"
        for told in () if kernel is None else kernel.lines(self._state.now):
            self._sheet.add(told, label=label)
            label = ""

    def _workers(self) -> None:
        state = self._state
        if state.last is None:
            return
        count = len(state.last.workers)
        if state.behind is None:
            told = f"{count}"
        elif state.behind:
            told = f"{count}, {state.behind} with an older list"
        else:
            told = f"{count}, in step with the list"
        self._sheet.add(told, label="workers")
        if state.started is not None:
            started = f"runs since {when(state.started)} UTC ({ago(state.started, state.now)})"
            self._sheet.add(started, label="Kamailio")
