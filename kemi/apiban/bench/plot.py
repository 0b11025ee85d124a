"""Draws the goodput measurement as an SVG of its own: no fonts, scripts or files besides."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from apiban.bench.goodput import HTABLE_EARLY, NONE, OURS, OURS_OFFLOAD, RECIPE, Goodput, Point

__all__ = ["draw_goodput"]

_WIDTH: Final = 760
_LEFT, _RIGHT = 64, 740
_LEGEND: Final = 62
_TOP, _MIDDLE = (108, 308), (352, 512)  # of the panels: from, to
_HEIGHT: Final = 564
_LOWEST_TIME: Final = 1e-4
_HIGHEST_TIME: Final = 10.0
# Told apart by their dashes and marks too, not by colours alone.
_STYLES: Final = {
    NONE: ("a", "", "circle"),
    RECIPE: ("b", "7 4", "square"),
    HTABLE_EARLY: ("c", "2 3", "diamond"),
    OURS: ("d", "", "triangle"),
    OURS_OFFLOAD: ("e", "10 3 2 3", "cross"),
}
_STYLE: Final = """
svg { --ink: #1f2328; --faint: #d0d7de; --paper: #ffffff;
  --a: #c2410c; --b: #8a6100; --c: #6f42c1; --d: #0a6b3d; --e: #0b5cad; }
@media (prefers-color-scheme: dark) { svg { --ink: #e6edf3; --faint: #3d444d; --paper: #0d1117;
  --a: #ff8f5a; --b: #e3b341; --c: #c9a6ff; --d: #4ad07d; --e: #6cb6ff; } }
text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.title { font-size: 15px; font-weight: 600; }
.panel { font-weight: 600; }
.grid { stroke: var(--faint); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.mark { stroke-width: 1.5; }
"""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where the values of an axis are, from ``low`` to ``high``."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Give the place of a value, which is kept within the axis."""
        way: Callable[[float], float] = math.log10 if self.logarithmic else float
        value = min(max(value, self.low), self.high)
        share = (way(value) - way(self.low)) / (way(self.high) - way(self.low))
        return self.begin + share * (self.end - self.begin)


def draw_goodput(found: Goodput, *, machine: str = "") -> str:
    """Give the text of an SVG: the calls' success and their p99 setup time against the flood."""
    names = [name for name in found.plan.protections if found.of(name)]
    rates = sorted(one.flood for one in found.points if one.flood)
    low = 10 ** math.floor(math.log10(rates[0] * 1.01)) if rates else 1.0
    high = max(rates[-1], low * 10) if rates else 10.0
    x = _Scale(low, high, _LEFT + 50, _RIGHT - 12, logarithmic=True)
    success = _Scale(0, 100, _TOP[1] - 6, _TOP[0] + 8)
    times = _Scale(_LOWEST_TIME, _HIGHEST_TIME, _MIDDLE[1] - 6, _MIDDLE[0] + 8, logarithmic=True)
    parts = [
        *_frame(found, machine),
        *_legend(names),
        *_rates(x),
        *_grid(success, [(value, f"{value} %") for value in (0, 25, 50, 75, 100)]),
        *_grid(times, [(1e-4, "0.1 ms"), (1e-3, "1 ms"), (1e-2, "10 ms"), (0.1, "100 ms")]),
        *_grid(times, [(1.0, "1 s"), (10.0, "10 s")]),
    ]
    for name in names:
        style, points = _STYLES[name], found.of(name)
        parts += _line(style, [(_x(x, one), success(100 * one.success)) for one in points])
        timed = [(_x(x, one), times(one.p99)) for one in points if one.p99 is not None]
        parts += _line(style, timed)
    return "\n".join([*parts, "</svg>", ""])


def _x(scale: _Scale, point: Point) -> float:
    return scale(point.flood) if point.flood else _LEFT + 14


def _frame(found: Goodput, machine: str) -> list[str]:
    title = "Good calls under a flood of INVITEs from listed sources"
    said = "; ".join(_said(found, name) for name in found.plan.protections if found.of(name))
    under = f"Kamailio, one UDP worker, -x {found.allocator}" + (f"; {machine}" if machine else "")
    size = f'width="{_WIDTH}" height="{_HEIGHT}"'
    timed = "Setup time of those, 99th percentile"
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {size}',
        '  role="img" aria-labelledby="title desc">',
        f'<title id="title">{title}</title>',
        f'<desc id="desc">{escape(under)}. {escape(said)}.</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect {size} fill="var(--paper)"/>',
        f'<text class="title" x="16" y="24">{title}</text>',
        f'<text x="16" y="42">{escape(under)}</text>',
        f'<text class="panel" x="16" y="{_TOP[0] - 6}">Calls that succeed</text>',
        f'<text class="panel" x="16" y="{_MIDDLE[0] - 6}">{timed}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 12}">Flood, messages a second</text>',
    ]


def _said(found: Goodput, name: str) -> str:
    points = found.of(name)
    lossy = next((one for one in points if one.lost), None)
    if lossy is None:
        return f"{name}: no call lost up to {points[-1].flood:,.0f}/s"
    worst = points[-1]
    return (
        f"{name}: first loss at {lossy.flood:,.0f}/s, "
        f"{worst.success:.0%} of the calls at {worst.flood:,.0f}/s"
    )


def _legend(names: Sequence[str]) -> list[str]:
    parts, x, y = [], 16, _LEGEND
    for name in names:
        width = 42 + round(6.4 * len(name))
        if x + width > _RIGHT:
            x, y = 16, y + 18
        parts += _line(_STYLES[name], [(x, y), (x + 13, y), (x + 26, y)], marks=slice(1, 2))
        parts.append(f'<text x="{x + 32}" y="{y + 4}">{escape(name)}</text>')
        x += width
    return parts


def _rates(scale: _Scale) -> list[str]:
    """Draw the vertical lines of both panels, and their rates."""
    decades = range(round(math.log10(scale.low)), math.floor(math.log10(scale.high)) + 1)
    ticks = [(_LEFT + 14.0, "0"), *((scale(10.0**one), _short(10**one)) for one in decades)]
    parts = []
    for x, text in ticks:
        for low, high in (_TOP, _MIDDLE):
            parts.append(f'<path class="grid" d="M{x:.1f} {low}V{high}"/>')
        parts.append(f'<text x="{x:.1f}" y="{_MIDDLE[1] + 18}" text-anchor="middle">{text}</text>')
    return parts


def _short(number: int) -> str:
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if number >= size:
            return f"{number // size}{letter}"
    return str(number)


def _grid(scale: _Scale, ticks: Sequence[tuple[float, str]]) -> list[str]:
    parts = []
    for value, text in ticks:
        y = scale(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return parts


def _line(
    style: tuple[str, str, str], points: Sequence[tuple[float, float]], marks: slice = slice(None)
) -> list[str]:
    """Draw a line and its marks; nothing without points."""
    if not points:
        return []
    name, dashes, mark = style
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    parts = [
        f'<path class="line" stroke="var(--{name})"'
        + (f' stroke-dasharray="{dashes}"' if dashes else "")
        + f' d="M{way}"/>'
    ]
    shapes = "".join(_mark(mark, x, y) for x, y in points[marks])
    parts.append(
        f'<path class="mark" stroke="var(--{name})" fill="var(--paper)" d="{shapes}"/>'
        if mark != "triangle"
        else f'<path class="mark" stroke="var(--{name})" fill="var(--{name})" d="{shapes}"/>'
    )
    return parts


def _mark(kind: str, x: float, y: float) -> str:
    start = f"M{x:.1f} {y:.1f}"
    return (
        start
        + {
            "circle": "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
            "square": "m-3 -3h6v6h-6z",
            "diamond": "m0 -4.5l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
            "triangle": "m0 -4.5l4.5 8h-9z",
            "cross": "m-3.5 -3.5l7 7m0 -7l-7 7",
        }[kind]
    )
