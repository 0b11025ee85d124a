"""What an operator should look after, most pressing first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from apiban.cli.host import SILENT
from apiban.cli.look import Look
from apiban.cli.show import ago, many, printable, span, until_when
from apiban.cli.state import State, Stock
from apiban.cli.words import when
from apiban.firewall.interfaces import absent
from apiban.settings import Mode
from apiban.sync.good import good_path, read_good

__all__ = ["Trouble", "troubles"]

_EFFECT = {
    Mode.SHADOW: "listed sources are counted and logged, and none is dropped",
    Mode.OFF: "nobody is dropped",
}
_TAKES = 10.0
_HELD_BACK = {
    "growth-held": "would grow by more than feed.max_growth a day",
    "too-long": "would be longer than feed.max_entries",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is not as it should be; ``code`` is its stable name."""

    code: str
    text: str


def troubles(state: State) -> list[Trouble]:
    """Give all that is to be said of a node."""
    return [
        Trouble(code, printable(text))
        for part in (_processes, _firewall, _mode, _good, _store, _list, _feed, _workers)
        for code, text in part(state)
    ]


def _processes(state: State) -> Iterator[tuple[str, str]]:
    paths, report = state.settings.paths, state.report
    kernel = state.kernel
    if state.last is None and not (kernel is not None and kernel.has_all):
        told = f"no Kamailio runs with {paths.runtime}: it drops nothing"
        if os.access(paths.runtime, os.F_OK) and not os.access(paths.runtime, os.R_OK | os.X_OK):
            told = f"{paths.runtime} is closed to you: be root, or a member of its group"
        yield "no-kamailio", told
    if report is None:
        yield "no-sync", "no sync process runs: the list stays as it is"
    elif state.silence is not None and state.silence >= SILENT:
        silent = f"the sync process took no tick for {span(state.silence)}"
        yield "sync-silent", f"{silent}: no change comes into force until Kamailio starts another"


def _firewall(state: State) -> Iterator[tuple[str, str]]:
    kernel, feed = state.kernel, state.settings.feed
    if kernel is None:
        return
    if not kernel.runs:
        ends = kernel.ends(lasts=feed.ban_for + feed.stale_max)
        if kernel.report.stopped:
            told = f"the firewall client was stopped {ago(kernel.report.at, state.now)}"
            mend = "start apiban-firewall to go on"
        else:
            told, mend = "the firewall client runs no more", "restart apiban-firewall"
        yield "no-firewall", f"{told}; what is in the kernel runs out {ends}: {mend}"
        return
    if kernel.report.trouble:
        yield "firewall", f"the firewall client: {kernel.report.trouble}"
    for name in absent(state.settings.firewall.interfaces):
        told = f"there is no interface {name} (firewall.interfaces): nothing is dropped there"
        yield "firewall-interface", told
    list_, known = state.published, kernel.report.position
    # The client looks for a new list each second: one that is so old it should have.
    if list_ is None or state.now - list_.snapshot.created < _TAKES:
        return
    mode = state.mode if state.report is None else list_.snapshot.mode  # else it asks the store
    if kernel.report.mode != str(mode):
        told = f"the kernel's list is in mode {kernel.report.mode}, not {mode}"
        yield "firewall-behind", told
    elif state.stock is not None and 0 < known < state.stock.known:
        late = many(state.stock.known - known, "change")
        yield "firewall-behind", f"the kernel lacks the list's last {late}"


def _mode(state: State) -> Iterator[tuple[str, str]]:
    override = state.override
    if state.mode is not Mode.ENFORCE:
        if override is None:
            by = "as the settings say"
        else:
            by = f"set at the command line {ago(override.added, state.now)}"
            if override.expires is not None:
                by += f", until {until_when(override.expires, state.now)}"
        yield "mode", f"the mode is {state.mode}, {by}: {_EFFECT[state.mode]}"


def _good(state: State) -> Iterator[tuple[str, str]]:
    """Tell of sources that would be dropped, and that somebody uses who calls."""
    if state.mode is not Mode.SHADOW:
        return
    good = read_good(good_path(state.settings.paths.runtime))
    if good:
        latest = ", ".join(f"{one.source} {one.what} {ago(one.at, state.now)}" for one in good[:3])
        number = many(len({one.source for one in good}), "listed source")
        yield "good-sources", f"{number} registered or called with success: {latest}"


def _store(state: State) -> Iterator[tuple[str, str]]:
    report = state.report
    if state.store_error:
        yield "store", state.store_error
    if state.stock is not None and state.stock.other:
        yield "store", f"{state.stock.other}: restart Kamailio, or name its folder with --state"
    if report is not None and report.store_error and report.store_error != state.store_error:
        yield "store", f"the sync process: {report.store_error}"
    if report is not None and report.settings_error:
        yield "settings", f"the last good settings stay in force: {report.settings_error}"
    elif state.mistake:
        yield "settings", f"the settings have a mistake (apiban -t): {state.mistake}"


def _list(state: State) -> Iterator[tuple[str, str]]:
    stock, list_, first, last = state.stock, state.published, state.first, state.last
    if last is not None and last.generation and list_ is None:
        yield "list-unreadable", "the list that the workers use cannot be read from its files"
    if last is not None and not last.generation:
        yield "no-list", "the workers have no list yet: everything passes"
    if last is not None and list_ is not None and list_.in_use:
        if list_.snapshot.mode is not state.mode:
            told = f"the workers' list is in mode {list_.snapshot.mode}, not {state.mode}"
            yield "not-published", told
        # Two looks apart, the first change is not just on its way.
        elif stock and first is not last and 0 < _known(last, stock) < stock.changes:
            late = many(stock.changes - _known(last, stock), "change")
            yield "not-published", f"the workers' list lacks the store's last {late}"
    if state.report is not None and state.report.drift:
        yield "drift", f"these disagree for a minute already: {state.report.drift}"
    if stock is not None and stock.overdue:
        lasts = span(state.settings.feed.stale_max)
        overdue = many(stock.overdue, "entry", "entries")
        told = f"{overdue} of the feed over time, in force until it answers, for {lasts} at most"
        yield "stale", told


def _known(last: Look, stock: Stock) -> int:
    """Give how far the workers' list knows the store; 0 when that is of another store."""
    return 0 if stock.other else max(last.position, stock.known)


def _feed(state: State) -> Iterator[tuple[str, str]]:
    report, stock = state.report, state.stock
    if report is None:
        if not state.settings.feed.key:
            yield "no-key", "no key is set (feed.key, or APIBAN_KEY): the feed is not asked"
    elif report.feed == "no-key":
        yield "no-key", "the sync has no key (feed.key, or APIBAN_KEY): the feed is not asked"
    elif report.feed not in {"ok", "unknown"}:
        error = f": {report.error}" if report.error else ""
        since = f"last complete answer: {ago(report.complete_at, state.now)}"
        yield "feed", f"feed {report.feed}{error}; {since}"
    held, since_when = _held(state, stock)
    if held:
        since = f"since {when(since_when)} UTC ({ago(since_when, state.now)})"
        told = f"a full pass that would remove over half of the list is held {since}"
        yield "pass-held", f"{told}: apiban feed hold show"
    if report is not None and report.held_back:
        why = _HELD_BACK.get(report.held_back, report.held_back)
        waiting = f"{report.waiting:,} new entries wait, " if report.waiting else ""
        yield report.held_back, f"{waiting}the feed's list {why}: apiban feed hold show"


def _held(state: State, stock: Stock | None) -> tuple[int, float | None]:
    if state.report is not None:
        return state.report.held, state.report.held_since
    return (0, None) if stock is None else (stock.feed.held, stock.feed.held_since)


def _workers(state: State) -> Iterator[tuple[str, str]]:
    if state.behind:
        number = many(state.behind, "worker")
        yield "workers-behind", f"{number} judged packets by an older list than the published one"
    if state.rates is not None and state.rates.faults:
        packets = many(state.rates.faults, "packet")
        yield "faults", f"a fault of ours let {packets} through just now: event=fault in the log"
