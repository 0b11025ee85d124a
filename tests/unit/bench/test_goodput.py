"""What is made of the points: doubts, limits, the goal, and which points are measured at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from apiban.bench import goodput
from apiban.bench.calls import Report
from apiban.bench.goodput import NONE, OURS, Goodput, Limits, Plan, Point, Protection, judge
from apiban.bench.machine import UdpSocket

REPORT = Report(
    began=10.0,
    ended=20.0,
    calls=100,
    lost=2,
    refused=0,
    repeated=7,
    setups=tuple(number / 1000 for number in range(1, 99)),
    lateness=(0.001,) * 100,
    urgent=True,
)
SENT = {"began": 9.5, "sent": 11_000, "seconds": 11.0}
CLEAN: dict[str, Any] = {
    "sent": SENT,
    "relayed": 0,
    "dropped": 5,
    "worker": 0.5,
    "waited": 0.01,
    "upstream": UdpSocket(0, 0),
    "exhausted": False,
}
LISTED = Protection("listed", list_in="store")


def point(protection: str, rate: int, lost: int, *, flood: float | None = None) -> Point:
    """Return a point of 100 calls."""
    sent = rate if flood is None else flood
    return Point(protection, rate, sent, 100, lost, 0, 0.001, 0.002, 0, 0, 0.1, 0.0, 0.0)


def test_a_point_has_what_was_seen() -> None:
    """Rates are those sent; percentiles are of the calls that were set up."""
    found = judge(LISTED, 1000, REPORT, **CLEAN)
    assert (found.flood, found.calls, found.lost, found.success) == (1000.0, 100, 2, 0.98)
    assert (found.p50, found.p99) == (0.049, 0.098)
    assert found.doubts == ()


def test_without_a_flood_there_is_nothing_to_doubt() -> None:
    """The first point of each has none."""
    found = judge(LISTED, 0, REPORT, **{**CLEAN, "sent": {}})
    assert (found.flood, found.doubts) == (0.0, ())


def test_without_a_call_that_was_set_up_there_is_no_time() -> None:
    """The percentiles are None then."""
    found = judge(LISTED, 1000, dataclasses.replace(REPORT, setups=()), **CLEAN)
    assert (found.p50, found.p99) == (None, None)


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        ({"sent": {**SENT, "sent": 5000}}, "flood of 455/s for 1,000/s"),
        ({"sent": {**SENT, "began": 10.5}}, "the flood began late"),
        ({"sent": {**SENT, "sent": 9000, "seconds": 9.0}}, "the flood ended early"),
        ({"relayed": 3}, "3 INVITEs of the flood were relayed"),
        ({"upstream": UdpSocket(0, 4)}, "4 packets lost by the upstream"),
        ({"exhausted": True}, "shared memory was exhausted"),
        ({"missing": 3}, "3 flooding sources were not in the kernel"),
        ({"waited": 0.2}, "the worker waited 20% of the time for its core"),
    ],
)
def test_what_may_spoil_a_point_is_said(change: Mapping[str, Any], doubt: str) -> None:
    """Each doubt comes alone."""
    assert judge(LISTED, 1000, REPORT, **{**CLEAN, **change}).doubts == (doubt,)


def test_a_late_caller_spoils_a_point() -> None:
    """The last percent may be late, not more."""
    late = dataclasses.replace(REPORT, lateness=(0.001,) * 98 + (0.05,) * 2)
    assert judge(LISTED, 1000, late, **CLEAN).doubts == ("callers late by 50 ms",)


def test_callers_without_priority_are_told_of() -> None:
    """Containers may forbid it."""
    found = judge(LISTED, 1000, dataclasses.replace(REPORT, urgent=False), **CLEAN)
    assert found.doubts == ("callers without priority",)


def test_without_protection_relaying_is_no_fault() -> None:
    """It is what the proxy is for."""
    assert judge(Protection(NONE), 1000, REPORT, **{**CLEAN, "relayed": 9}).doubts == ()


def run(*points: Point) -> Goodput:
    """Return the run of some points."""
    names = tuple(dict.fromkeys(one.protection for one in points))
    return Goodput("tlsf", Plan((), names), points)


def test_limits_are_where_calls_begin_to_be_lost() -> None:
    """A lucky point above the first loss does not count as lossless."""
    found = run(
        point(NONE, 4000, 51), point(NONE, 0, 0), point(NONE, 1000, 0), point(NONE, 2000, 1),
        point(NONE, 3000, 0), point(OURS, 4000, 0),
    )  # fmt: skip
    assert found.limits() == (Limits(NONE, 1000, 2000, 4000), Limits(OURS, 4000, None, None))


def test_half_of_the_calls_is_not_more_than_half() -> None:
    """The goal speaks of more than half."""
    assert run(point(NONE, 1000, 50)).limits()[0].half is None


@pytest.mark.parametrize(
    ("points", "goal"),
    [
        ([point(NONE, 1000, 0), point(NONE, 2000, 60), point(OURS, 2000, 0)], True),
        ([point(NONE, 1000, 0), point(NONE, 2000, 60), point(OURS, 2000, 1)], False),
        ([point(NONE, 2000, 60), point(NONE, 4000, 90), point(OURS, 4000, 9)], None),
        ([point(NONE, 1000, 0), point(OURS, 1000, 0)], None),
    ],
)
def test_the_goal_is_judged_at_one_rate(points: list[Point], *, goal: bool | None) -> None:
    """At the lowest at which no protection loses more than half; unknown without such a point."""
    assert run(*points).goal().reached is goal


@pytest.mark.parametrize("doubtful", [NONE, OURS])
def test_doubts_of_either_point_are_the_goals(doubtful: str) -> None:
    """Half of the calls may have been lost for other reasons than the flood."""
    points = [point(NONE, 2000, 60), point(OURS, 2000, 0)]
    assert not run(*points).goal().noisy
    points = [
        dataclasses.replace(one, doubts=("a doubt",)) if one.protection == doubtful else one
        for one in points
    ]
    assert run(*points).goal().noisy


def test_rows_are_plain_data() -> None:
    """One a point, by protection and rate."""
    rows = run(point(OURS, 2000, 25), point(OURS, 0, 0)).rows()
    assert [(row["protection"], row["asked"], row["success"]) for row in rows] == [
        (OURS, 0, 1.0),
        (OURS, 2000, 0.75),
    ]
    assert rows[0]["allocator"] == "tlsf"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """Return a measurement whose points are made up; it gives ``name@rate`` in their order."""

    def measure(plan: Plan, lost: Callable[[str, int], int], *, most: float = 1e9) -> list[str]:
        def made_up(protection: Protection, rate: int, *_: object) -> Point:
            calls = lost(protection.name, rate)
            return point(protection.name, rate, calls, flood=min(rate, most))

        monkeypatch.setattr(goodput, "_point", made_up)
        found = goodput.measure_goodput(tmp_path, allocator="tlsf", plan=plan, say=lambda _: None)
        return [f"{one.protection}@{one.asked}" for one in found.points]

    return measure


def test_the_order_alternates(measured: Callable[..., list[str]]) -> None:
    """What drifts reaches all alike."""
    plan = Plan((0, 10, 20), (NONE, OURS))
    assert measured(plan, lambda *_: 0) == [
        f"{NONE}@0", f"{OURS}@0", f"{OURS}@10", f"{NONE}@10", f"{NONE}@20", f"{OURS}@20",
    ]  # fmt: skip


def test_what_has_collapsed_is_left_out(measured: Callable[..., list[str]]) -> None:
    """Its higher floods would cost time and tell nothing."""
    plan = Plan((10, 20, 40), (NONE, OURS))
    found = measured(plan, lambda name, rate: 80 if name == NONE and rate == 20 else 0)
    assert [one for one in found if one.startswith(NONE)] == [f"{NONE}@10", f"{NONE}@20"]
    assert f"{OURS}@40" in found


def test_what_the_flood_cannot_reach_is_left_out(measured: Callable[..., list[str]]) -> None:
    """Twice the rate would be the same flood again."""
    assert measured(Plan((10, 20, 40), (OURS,)), lambda *_: 0, most=15) == [
        f"{OURS}@10",
        f"{OURS}@20",
    ]


def test_low_floods_are_for_those_without_protection(measured: Callable[..., list[str]]) -> None:
    """No flood at all is for everyone."""
    plan = Plan((0, 10, 20), (NONE, OURS), protected_from=20)
    found = measured(plan, lambda *_: 0)
    assert [one for one in found if one.startswith(OURS)] == [f"{OURS}@0", f"{OURS}@20"]


def test_the_offload_needs_a_namespace_of_its_own(
    measured: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's firewall is touched: without one, it is left out."""
    plan = Plan((0,), (OURS, goodput.OURS_OFFLOAD))
    monkeypatch.setattr(goodput.shutil, "which", lambda name: name)
    for private, expected in ((False, [OURS]), (True, [OURS, goodput.OURS_OFFLOAD])):
        monkeypatch.setattr(goodput, "is_private", lambda private=private: private)
        assert measured(plan, lambda *_: 0) == [f"{name}@0" for name in expected]
