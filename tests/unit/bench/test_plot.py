"""The goodput plot is a whole, accessible SVG whose lines stay in their panels."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree as ET

from apiban.bench.goodput import NONE, OURS, RECIPE, Goodput, Plan
from apiban.bench.plot import draw_goodput

from .test_goodput import point

SVG = "{http://www.w3.org/2000/svg}"
NAMES = (NONE, RECIPE, OURS)
FOUND = Goodput(
    "tlsf",
    Plan((), NAMES),
    tuple(
        point(name, rate, 0 if name == OURS or rate < 100_000 else 100)
        for name in NAMES
        for rate in (0, 1000, 100_000, 1_600_000)
    ),
)


def lines(svg: str) -> list[list[tuple[float, float]]]:
    """Give the points of the lines with four points: those of the panels."""
    paths = [one.get("d", "") for one in ET.fromstring(svg).iter(f"{SVG}path")]  # noqa: S314
    found = []
    for path in paths:
        numbers = re.findall(r"([\d.]+) ([\d.]+)", path) if "L" in path else []
        if len(numbers) == 4:
            found.append([(float(x), float(y)) for x, y in numbers])
    return found


def test_it_says_what_it_shows() -> None:
    """Title and description name each protection and its first loss."""
    root = ET.fromstring(draw_goodput(FOUND, machine="a <b> & c"))  # noqa: S314
    assert root.get("role") == "img"
    ids = (root.get("aria-labelledby") or "").split()
    told = {one.get("id"): one.text or "" for one in root if one.get("id")}
    assert set(ids) == set(told)
    assert "no protection: first loss at 100,000/s, 0% of the calls" in told["desc"]
    assert "ours: no call lost up to 1,600,000/s" in told["desc"]
    assert "a <b> & c" in told["desc"]


def test_each_protection_has_a_line_in_both_panels() -> None:
    """Success falls from the top of the first; a higher flood is further to the right."""
    drawn = lines(draw_goodput(FOUND))
    assert len(drawn) == 2 * len(NAMES)
    for line in drawn:
        assert [x for x, _ in line] == sorted({x for x, _ in line})
        assert all(0 < x < 760 and 0 < y < 564 for x, y in line)
    lost, _, _, _, kept, _ = drawn
    assert lost[0][1] < lost[-1][1]
    assert {y for _, y in kept} == {lost[0][1]}


def test_without_calls_there_is_no_time() -> None:
    """A point where nothing was set up has no mark in the second panel."""
    points = [
        dataclasses.replace(one, p99=None) if one.protection == NONE and one.lost else one
        for one in FOUND.points
    ]
    assert len(lines(draw_goodput(dataclasses.replace(FOUND, points=tuple(points))))) == 5


def test_a_run_without_a_flood_can_be_drawn() -> None:
    """As an interrupted one would be."""
    found = Goodput("qm", Plan((), (OURS,)), (point(OURS, 0, 0),))
    assert "-x qm" in draw_goodput(found)
