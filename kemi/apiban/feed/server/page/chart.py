"""Charts as inline SVG, drawn on the server: lines over time, and bars by label.

Colours are the stylesheet's, by class, so that a chart follows the reader's light or dark scheme;
sizes are units of the drawing, which fills the width that it is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from apiban.feed.server.page.words import amount, compact, time, visible

__all__ = ["FRAME", "WIDTH", "Amount", "Frame", "Series", "bars", "lines", "ticks", "time_ticks"]

WIDTH: Final = 480

_HEIGHT: Final = 220
_DAY: Final = 86400
_TIME_STEPS: Final = (
    *(3600 * hours for hours in (1, 3, 6, 12)),
    *(_DAY * days for days in (1, 2, 5, 10, 30, 90, 365)),
)
_MOST_TICKS: Final = 6
_ROW: Final = 36
_LONGEST_LABEL: Final = 36


@dataclass(frozen=True, slots=True)
class Amount:
    """A count and what it is of."""

    label: str
    value: int


@dataclass(frozen=True, slots=True)
class Series:
    """A line: points of (seconds since 1970, value of 0 or more), in the order of time."""

    label: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """The rectangle that a chart's points lie in."""

    left: int
    top: int
    right: int
    bottom: int


FRAME: Final = Frame(left=56, top=34, right=WIDTH - 28, bottom=_HEIGHT - 30)


def lines(  # noqa: PLR0913 - what a chart has
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    begin: float,
    end: float,
    gap: float,
) -> Markup:
    """Draw series from ``begin`` to ``end``; points further apart than ``gap`` are not joined.

    ``name`` is the chart's own in its document, of letters and dashes.
    """
    shown = [
        Series(one.label, tuple(point for point in one.points if begin <= point[0] <= end))
        for one in series
    ]
    steps = ticks(max((value for one in shown for _, value in one.points), default=0))
    scale = _Scale(begin, max(end - begin, 1), steps[-1])
    parts = [_y_axis(scale, steps), _x_axis(scale, time_ticks(begin, end))]
    for number, one in enumerate(shown):
        parts.append(_legend(number, one.label, len(shown)))
        parts.append(_line(scale, number, one, gap))
    if not any(one.points for one in shown):
        parts.append(_nothing(_HEIGHT))
    return _drawing(name, title, " ".join(map(_summary, shown)), _HEIGHT, parts)


def bars(name: str, title: str, amounts: Sequence[Amount]) -> Markup:
    """Draw a bar for each amount, in the order given; ``name`` is as in ``lines``."""
    most = max((one.value for one in amounts), default=0) or 1
    parts = []
    for number, one in enumerate(amounts):
        top = number * _ROW
        label = visible(one.label)
        cut = label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"
        width = max(one.value, 0) / most * WIDTH
        parts.append(
            Markup(
                '<g><title>{0}: {1}</title><text x="0" y="{2}">{3}</text>'
                '<text class="value" x="{4}" y="{2}">{1}</text>'
                '<rect class="track" x="0" y="{5}" width="{4}" height="8" rx="2"/>'
                '<rect class="bar" x="0" y="{5}" width="{6}" height="8" rx="2"/></g>'
            ).format(label, amount(one.value), top + 16, cut, WIDTH, top + 22, f"{width:.1f}")
        )
    height = _ROW * max(len(amounts), 2)
    if not amounts:
        parts.append(_nothing(height))
    summary = ", ".join(f"{visible(one.label)}: {amount(one.value)}" for one in amounts)
    return _drawing(name, title, summary or "No data yet.", height, parts)


def ticks(highest: float) -> list[int]:
    """Give round numbers from 0 to one that is ``highest`` or above: 2 to 6 of them."""
    rough = max(highest / (_MOST_TICKS - 1), 1)
    size = 10 ** int(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if size * factor >= rough)
    return [step * number for number in range(max(math.ceil(highest / step), 1) + 1)]


def time_ticks(begin: float, end: float) -> list[tuple[float, str]]:
    """Give round times from ``begin`` to ``end`` with their labels, in UTC: 6 at most."""
    span = end - begin
    step = next((step for step in _TIME_STEPS if span < step * _MOST_TICKS), 0)
    if not step:
        return [(begin, time(begin, "%Y")), (end, time(end, "%Y"))]
    first = math.ceil(begin / step)
    times = [number * step for number in range(first, math.floor(end / step) + 1)]
    return [(at, time(at, "%d %b" if step >= _DAY else "%H:%M")) for at in times]


@dataclass(frozen=True, slots=True)
class _Scale:
    """From times and values to the frame's units."""

    begin: float
    span: float
    top: float

    def x(self, at: float) -> float:
        return FRAME.left + (at - self.begin) / self.span * (FRAME.right - FRAME.left)

    def y(self, value: float) -> float:
        return FRAME.bottom - value / self.top * (FRAME.bottom - FRAME.top)


def _y_axis(scale: _Scale, steps: Sequence[int]) -> Markup:
    line = Markup(
        '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
        '<text class="value" x="{3}" y="{4:.1f}">{5}</text>'
    )
    return Markup("").join(
        line.format(
            FRAME.left,
            FRAME.right,
            scale.y(step),
            FRAME.left - 8,
            scale.y(step) + 4,
            compact(step),
        )
        for step in steps
    )


def _x_axis(scale: _Scale, times: Sequence[tuple[float, str]]) -> Markup:
    mark = Markup(
        '<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
        '<text class="middle" x="{0:.1f}" y="{3}">{4}</text>'
    )
    return Markup("").join(
        mark.format(scale.x(at), FRAME.bottom, FRAME.bottom + 5, FRAME.bottom + 22, label)
        for at, label in times
    )


def _legend(number: int, label: str, of: int) -> Markup:
    left = FRAME.left + number * (FRAME.right - FRAME.left) / of
    return Markup(
        '<line class="line s{0}" x1="{1:.1f}" x2="{2:.1f}" y1="12" y2="12"/>'
        '<text x="{3:.1f}" y="16">{4}</text>'
    ).format(number, left, left + 20, left + 26, visible(label))


def _line(scale: _Scale, number: int, series: Series, gap: float) -> Markup:
    parts = []
    for run in _runs(series.points, gap):
        spots = [(f"{scale.x(at):.1f}", f"{scale.y(value):.1f}") for at, value in run]
        (first, y), (last, _) = spots[0], spots[-1]
        if len(spots) == 1:
            parts.append(f'<circle class="dot s{number}" cx="{first}" cy="{y}" r="3"/>')
            continue
        path = "L".join(f"{x} {y}" for x, y in spots)
        parts.append(
            f'<path class="area s{number}" d="M{path}L{last} {FRAME.bottom}L{first} '
            f'{FRAME.bottom}Z"/><path class="line s{number}" d="M{path}"/>'
        )
    return Markup("".join(parts))  # noqa: S704 - numbers alone


def _runs(
    points: Sequence[tuple[float, float]], gap: float
) -> Iterator[Sequence[tuple[float, float]]]:
    """Give the pieces between gaps."""
    begin = 0
    for at in range(1, len(points) + 1):
        if at == len(points) or points[at][0] - points[at - 1][0] > gap:
            yield points[begin:at]
            begin = at


def _summary(series: Series) -> str:
    """Say in words what a line shows."""
    if not series.points:
        return f"{visible(series.label)}: no data yet."
    values = [value for _, value in series.points]
    return (
        f"{visible(series.label)}: {amount(values[-1])} at {time(series.points[-1][0])} UTC, "
        f"between {amount(min(values))} and {amount(max(values))}."
    )


def _nothing(height: int) -> Markup:
    return Markup('<text class="middle" x="{}" y="{}">No data yet</text>').format(
        WIDTH // 2, height // 2
    )


def _drawing(name: str, title: str, summary: str, height: int, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg id="{0}" class="chart" role="img" aria-labelledby="{0}-title {0}-desc" '
        'viewBox="0 0 {1} {2}" xmlns="http://www.w3.org/2000/svg">'
        '<title id="{0}-title">{3}</title><desc id="{0}-desc">{4}</desc>{5}</svg>'
    ).format(name, WIDTH, height, visible(title), summary, Markup("").join(parts))
