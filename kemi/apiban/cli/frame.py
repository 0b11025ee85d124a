"""One frame of ``apiban top``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from apiban.cli.show import ago, cut, many, printable, rate
from apiban.cli.state import State
from apiban.cli.trouble import Trouble
from apiban.cli.words import when
from apiban.gate.hits import Hit
from apiban.store import DETECTOR, FEED_SOURCE, LOCAL

__all__ = ["Frame", "Source", "document", "sources"]

_BARS: Final = "▁▂▃▄▅▆▇█"
_PLAIN_BARS: Final = "_.-=+*#@"
_HEADS: Final = ("source", "per s", "packets", "via", "ban by", "first line")
_SPARK: Final = 40
_WIDEST: Final = 120  # of the head
_UNKNOWN: Final = "?"


@dataclass(frozen=True, slots=True)
class Source:
    """A source that was met: its hits, and how many of its packets came a second."""

    hit: Hit
    per_second: float

    @property
    def packets(self) -> int:
        """What was dropped, or would have been."""
        return self.hit.dropped + self.hit.would_drop


def sources(state: State) -> list[Source]:
    """Give the sources, those that flood now first."""
    if state.last is None:
        return []
    speeds = {} if state.rates is None else state.rates.sources
    found = [Source(hit, speeds.get(name, 0.0)) for name, hit in state.last.hits.items()]
    return sorted(found, key=lambda one: (-one.per_second, -one.packets, one.hit.source))


def transports(found: Sequence[Source]) -> dict[str, tuple[int, float]]:
    """Sum up packets, and packets a second, by the transport of a source's first message."""
    sums: dict[str, tuple[int, float]] = {}
    for one in found:
        name = one.hit.transport or _UNKNOWN
        packets, speed = sums.get(name, (0, 0.0))
        sums[name] = packets + one.packets, speed + one.per_second
    return dict(sorted(sums.items(), key=lambda item: -item[1][0]))


def document(state: State, found: Sequence[Source], troubles: Sequence[Trouble]) -> dict[str, Any]:
    """Give a frame for machines."""
    rates, last, report = state.rates, state.last, state.report
    total = None if last is None else last.total
    return {
        "at": state.now,
        "warnings": [{"code": one.code, "text": one.text} for one in troubles],
        "mode": str(state.mode),
        "seconds": None if rates is None else round(rates.seconds, 3),
        "dropped": None if total is None else total.dropped,
        "would_drop": None if total is None else total.would_drop,
        "passed": None if total is None else total.passed,
        "dropped_per_second": None if rates is None else round(rates.dropped, 1),
        "would_drop_per_second": None if rates is None else round(rates.would_drop, 1),
        "passed_per_second": None if rates is None else round(rates.passed, 1),
        "transports": {
            name: {"packets": packets, "per_second": round(speed, 1)}
            for name, (packets, speed) in transports(found).items()
        },
        "firewall": None if state.kernel is None else state.kernel.document(),
        "sources": [
            {
                "source": one.hit.source,
                "per_second": round(one.per_second, 1),
                "dropped": one.hit.dropped,
                "would_drop": one.hit.would_drop,
                "exact": one.hit.exact,
                "origin": one.hit.origin.source,
                "first_seen": one.hit.first_seen,
                "last_seen": one.hit.last_seen,
                "transport": one.hit.transport or None,
                "port": one.hit.port or None,
                "line": one.hit.line or None,
            }
            for one in found
        ],
        "sync": None
        if report is None
        else {
            "feed": report.feed,
            "complete": report.complete_at,
            "pass_started": report.pass_started,
            "pass_seen": report.pass_seen,
            "entries": report.entries,
        },
    }


@dataclass(frozen=True, slots=True)
class Frame:
    """What the lines of one frame show, each of at most ``width`` characters.

    ``history`` are the last rates of drops, Kamailio's and the kernel's together; ``plain`` draws
    with ASCII alone.
    """

    state: State
    found: Sequence[Source]
    troubles: Sequence[Trouble]
    history: Sequence[float]
    width: int
    plain: bool

    def lines(self, height: int) -> list[Text]:
        """Give at most so many lines."""
        above = [*self._head(), *self._numbers(), *self._sync()]
        rows = [_cells(one) for one in self.found[: max(height - len(above) - 1, 0)]]
        wide = max((len(cells[0]) for cells in rows), default=0)
        table = [self._line(_HEADS, wide, "reverse")]
        table += [
            self._line(cells, wide, "" if one.per_second else "dim")
            for cells, one in zip(rows, self.found, strict=False)
        ]
        if not self.found:
            told = "no listed source was met since Kamailio's start"
            if self.state.last is None and self.state.kernel is not None:
                told = "the kernel counts no sources, and no Kamailio runs that does"
            table = [Text(told, style="dim")]
        drawn = [*above, *table][:height]
        for one in drawn:
            one.truncate(self.width, overflow="crop" if self.plain else "ellipsis")
        return drawn

    def _head(self) -> Iterator[Text]:
        state = self.state
        mode = str(state.mode)
        style = "bold green" if mode == "enforce" else "bold red"
        line = Text.assemble(("apiban top  ", "bold"), (mode, style))
        if state.stock is not None:
            line.append(f"  {many(sum(state.stock.sources.values()), 'entry', 'entries')}")
        if state.started is not None:
            line.append(f"  up since {when(state.started)[5:16]}")
        clock = when(state.now)[11:] + " UTC"
        yield line.append(
            clock.rjust(max(min(self.width, _WIDEST) - line.cell_len, len(clock) + 2))
        )
        if self.troubles:
            more = f" (and {len(self.troubles) - 1} more)" if len(self.troubles) > 1 else ""
            yield Text(f"WARNING{more}: {self.troubles[0].text}", style="bold red")
        yield Text()

    def _numbers(self) -> Iterator[Text]:
        rows = [*self._of_kamailio(), *self._of_kernel()]
        for number, (name, speed, count) in enumerate(rows):
            per = "-" if speed is None else rate(speed)
            line = Text.assemble((f"{name:<12}", "dim"), (f"{per:>9}/s", "bold"), f"{count:>15,}  ")
            if not number:
                room = min(_SPARK, self.width - line.cell_len)
                line.append(self._spark(room), style="red")
            yield line
        if self.state.last is None:
            return
        total = self.state.last.total
        by = (
            (FEED_SOURCE, total.dropped_feed),
            (LOCAL, total.dropped_local),
            (DETECTOR, total.dropped_detector),
        )
        yield self._labelled("ban by", ", ".join(f"{name} {count:,}" for name, count in by))
        sums = transports(self.found)
        yield self._labelled(
            "via", ", ".join(f"{name} {rate(speed)}/s" for name, (_, speed) in sums.items()) or "-"
        )

    def _of_kamailio(self) -> list[tuple[str, float | None, int]]:
        """Give what Kamailio did: a name, how many a second, how many in all."""
        last, rates = self.state.last, self.state.rates
        if last is None:
            return []
        total = last.total
        return [
            ("dropped", None if rates is None else rates.dropped, total.dropped),
            ("would drop", None if rates is None else rates.would_drop, total.would_drop),
            ("passed", None if rates is None else rates.passed, total.passed),
        ]

    def _of_kernel(self) -> list[tuple[str, float | None, int]]:
        """Give what the kernel dropped, or in shadow mode counted, before Kamailio saw it."""
        kernel = self.state.kernel
        if kernel is None:
            return []
        name = "in kernel" if kernel.report.mode == "enforce" else "kernel saw"
        speed = kernel.report.dropped_per_second if kernel.runs else None
        return [(name, speed, kernel.dropped)]

    def _spark(self, room: int) -> str:
        """Draw the last rates, each as high as its part of the highest."""
        bars = _PLAIN_BARS if self.plain else _BARS
        shown = list(self.history)[-room:] if room > 0 else []
        top = max(shown, default=0.0)
        return "".join(
            bars[min(int(one / top * len(bars)), len(bars) - 1)] if top else bars[0]
            for one in shown
        )

    def _sync(self) -> Iterator[Text]:
        report, now = self.state.report, self.state.now
        if report is None:
            yield self._labelled("feed", "no sync process runs")
        else:
            told = f"{report.feed}, last complete answer {ago(report.complete_at, now)}"
            if report.next_request_at is not None:
                told += f", next request {ago(max(report.next_request_at, now), now)}"
            yield self._labelled("feed", told)
            if report.pass_started is not None:
                yield self._labelled("full pass", self._progress(report.pass_seen, report.entries))
        yield Text()

    def _progress(self, seen: int, entries: int) -> str:
        """Draw how far a pass is; how long the list is, it tells only at its end."""
        told = f"{seen:,} entries"
        stock = self.state.stock
        first = stock is None or stock.feed.pass_ended is None
        if first or not entries:
            return f"{told} so far"
        full, empty = ("#", "-") if self.plain else ("█", "░")
        done = min(int(20 * seen / entries), 20)
        return f"{full * done}{empty * (20 - done)}  {told} of about {entries:,}"

    @staticmethod
    def _labelled(label: str, text: str) -> Text:
        return Text.assemble((f"{label:<12}", "dim"), printable(text))

    def _line(self, cells: Sequence[str], wide: int, style: str) -> Text:
        source, speed, packets, via, origin, line = cells
        text = f"{source:<{max(wide, 15)}}  {speed:>7}  {packets:>11}  {via:<4} {origin:<8}  {line}"
        return Text(cut(text, self.width).ljust(self.width if style == "reverse" else 0), style)


def _cells(one: Source) -> tuple[str, ...]:
    hit = one.hit
    return (
        hit.source,
        rate(one.per_second),
        ("" if hit.exact else "~") + format(one.packets, ","),
        hit.transport or _UNKNOWN,
        hit.origin.source,
        printable(hit.line),
    )
