"""The other parts of the report: calls under a flood, growth with the list, and loading it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from apiban.bench.enforce import Enforcement, measure_enforcement
from apiban.bench.goodput import (
    FULL,
    NONE,
    OURS,
    QUICK,
    RECIPE,
    Goodput,
    Limits,
    Point,
    measure_goodput,
)
from apiban.bench.growth import Growth, measure_growth, measure_memory
from apiban.bench.lookup import AGAIN, FIRST_MET, LISTED, UNLISTED
from apiban.bench.machine import Machine
from apiban.bench.nodes import OURS as OUR_NODE
from apiban.bench.nodes import PYTHON
from apiban.bench.plot import draw_goodput
from apiban.bench.pull import Plan, measure_pull
from apiban.bench.recipe import RECIPE_INTERVAL
from apiban.bench.report import Goal, Part

__all__ = ["enforcement", "goodput", "growth", "memory", "sync"]

Say = Callable[[str], None]

_OF_SMALLEST = 1.5  # a look-up in a million, of one in a thousand
_ENFORCED = 1.0  # seconds
_MANY = 100_000


def goodput(
    folder: Path, *, allocator: str, quick: bool, plots: Path | None, say: Say
) -> list[Part]:
    """Measure what becomes of good calls under a flood."""
    plan = QUICK if quick else FULL
    if allocator == "qm":  # the cheaper ones do not depend on it
        plan = replace(plan, protections=tuple(one for one in (NONE, RECIPE, OURS)))
    found = measure_goodput(folder, allocator=allocator, plan=plan, say=say)
    if plots is not None:
        here = Machine.here()
        picture = draw_goodput(found, machine=f"{here.cpu}, {here.kamailio}")
        (plots / f"goodput-{allocator}.svg").write_text(picture, encoding="utf-8")
    return [
        Part(
            f"Good calls under a flood of INVITEs (-x {allocator})",
            ("protection", "none lost up to", "begins to lose at", "more than half lost at"),
            tuple(_limits(one) for one in found.limits()),
            (
                "floods in messages a second, as sent; `-` was not reached",
                *(doubt for doubt in _doubts(found)),
            ),
            (found.goal(),),
            {"points": found.rows()},
        ),
        Part(
            f"Good calls, point by point (-x {allocator})",
            ("protection", "flood", "calls that succeeded", "p50", "p99"),
            tuple(_point(one) for name in found.plan.protections for one in found.of(name)),
            ("from INVITE to 200, of the calls that were set up; `~` marks points with a doubt",),
        ),
    ]


def _point(one: Point) -> tuple[str, ...]:
    return (
        one.protection,
        f"{one.flood:,.0f}/s",
        f"{'~' if one.doubts else ''}{one.success:.1%}",
        *("-" if seconds is None else f"{seconds * 1e3:.1f} ms" for seconds in (one.p50, one.p99)),
    )


def _limits(one: Limits) -> tuple[str, ...]:
    return one.protection, *(
        "-" if flood is None else f"{flood:,.0f}/s"
        for flood in (one.lossless, one.begins, one.half)
    )


def _doubts(found: Goodput) -> Iterable[str]:
    for point in found.points:
        for doubt in point.doubts:
            yield f"doubt: {point.protection} at {point.flood:,.0f}/s: {doubt}"


def growth(folder: Path, *, allocator: str, quick: bool, say: Say) -> list[Part]:
    """Measure how look-ups, builds, drops and memory grow with the list and the workers."""
    folder.mkdir()
    found = measure_growth(
        folder,
        allocator=allocator,
        sizes=(1000, _MANY) if quick else (1000, 10_000, _MANY, 1_000_000),
        workers=(1, 8) if quick else (1, 2, 4, 8, 16),
        packets=30_000 if quick else 100_000,
        rounds=2 if quick else 5,
        say=say,
    )
    rows = found.rows()
    titles = {
        "look_up": "A look-up in the snapshot, by the list's size",
        "build": "From the store to the announced snapshot",
        "drop": "A dropped packet, by the list's size",
        "memory": "Memory of all processes, by the list's size and the workers",
    }
    return [
        _rows(
            f"{title} (-x {allocator})",
            rows[name],
            {"look_up": _look_up_goals, "memory": _memory_goals}.get(name, _no_goals)(found),
        )
        for name, title in titles.items()
    ]


def memory(folder: Path, *, allocator: str, quick: bool, say: Say) -> list[Part]:
    """Measure the memory of 8 workers alone: the rest hardly depends on the allocator."""
    folder.mkdir()
    ranges = 1000 if quick else _MANY
    found = measure_memory(folder, allocator=allocator, ranges=ranges, workers=8, say=say)
    title = f"Memory of all processes (-x {allocator})"
    return [_rows(title, found.rows()["memory"], _total_goals(found))]


def _no_goals(_: Growth) -> tuple[Goal, ...]:
    return ()


def _look_up_goals(found: Growth) -> tuple[Goal, ...]:
    by_size = {(one.kind, one.ranges): one.nanoseconds for one in found.look_ups}
    smallest, largest = (rank(one.ranges for one in found.look_ups) for rank in (min, max))
    return tuple(
        Goal.of(
            f"a look-up at {largest:,} ranges, of one at {smallest:,}: {kind}",
            by_size[kind, largest].per(by_size[kind, smallest]),
            _OF_SMALLEST,
            noisy=by_size[kind, largest].noisy or by_size[kind, smallest].noisy,
        )
        for kind in (AGAIN, UNLISTED, LISTED, FIRST_MET)
    )


def _memory_goals(found: Growth) -> tuple[Goal, ...]:
    held = {(one.setup, one.ranges, one.workers): one.memory for one in found.holdings}
    sizes = [ranges for setup, ranges, workers in held if setup == OUR_NODE and workers == 1]
    return (
        Goal(
            f"memory a worker at {max(sizes):,} ranges, of that at {min(sizes):,}",
            held[OUR_NODE, max(sizes), 1].worker / held[OUR_NODE, min(sizes), 1].worker,
            1.05,
        ),
        *_total_goals(found),
    )


def _total_goals(found: Growth) -> tuple[Goal, ...]:
    held = {(one.setup, one.ranges, one.workers): one.memory for one in found.holdings}
    recipe = [
        memory.total
        for (setup, ranges, workers), memory in held.items()
        if setup not in {OUR_NODE, PYTHON} and (ranges, workers) == (_MANY, 8)
    ]
    ours = held.get((OUR_NODE, _MANY, 8))
    if not recipe or ours is None:
        return ()
    name = f"memory in total at {_MANY:,} ranges and 8 workers, of the recipe's"
    return (Goal(f"{name} (-x {found.allocator})", ours.total / min(recipe), 1.0),)


def enforcement(folder: Path, *, allocator: str, quick: bool, say: Say) -> list[Part]:
    """Measure the time from a feed's answer to the drop in all workers."""
    folder.mkdir()
    pages = 4 if quick else 100
    runs = [
        _enforced(folder, allocator, workers, pages, say, with_recipe=False)
        for workers in ((8,) if quick else (1, 8))
    ]
    runs.append(_enforced(folder, allocator, 8, min(pages, 20), say, with_recipe=True))
    goals = tuple(
        Goal(
            f"seconds from a page to its enforcement in {one.workers} workers, 99th percentile "
            f"({_MANY:,} ranges, -x {allocator})",
            one.quantile(0.99),
            _ENFORCED,
        )
        for one in runs[:-1]
    )
    rows = [one.row() for one in runs]
    return [_rows(f"From a feed's answer to its enforcement (-x {allocator})", rows, goals)]


def _enforced(  # noqa: PLR0913 - each is one thing that varies
    folder: Path, allocator: str, workers: int, pages: int, say: Say, *, with_recipe: bool
) -> Enforcement:
    place = folder / f"{workers}-{with_recipe}"
    place.mkdir()
    return measure_enforcement(
        place,
        allocator=allocator,
        ranges=_MANY,
        workers=workers,
        pages=pages,
        with_recipe=with_recipe,
        say=say,
    )


def sync(folder: Path, *, quick: bool, say: Say) -> list[Part]:
    """Measure how long a list takes to load under the API's rate limit."""
    folder.mkdir()
    plans = [Plan(with_recipe=one, ranges=250, scale=100) for one in (False, True)]
    large = [Plan(with_recipe=one, ranges=5000, scale=100) for one in (False, True)]
    large += [Plan(with_recipe=False, ranges=_MANY, scale=100)]
    large += [Plan(with_recipe=True, ranges=_MANY, scale=1000)]
    found = measure_pull(
        folder,
        plans if quick else plans + large,
        computed=large if quick else (),
        allocator="tlsf",
        say=say,
    )
    sooner = ", ".join(
        f"{one.plan.ranges:,} ranges {one.real - RECIPE_INTERVAL:,.1f} s"
        for one in found.loads
        if one.plan.with_recipe
    )
    remark = (
        "the recipe's optional load at start (`event_route[htable:mod-init]`), not measured, makes "
        f"each of its loads one interval of {RECIPE_INTERVAL:g} s shorter: {sooner}"
    )
    return [_rows("Loading a list under the API's rate limit", found.rows(), (), remark)]


def _rows(
    title: str, rows: Sequence[Mapping[str, object]], goals: tuple[Goal, ...], *remarks: str
) -> Part:
    """Make a part of plain rows; ``noisy`` marks the figure before it."""
    names = [name for name in rows[0] if name != "noisy"]
    return Part(
        title,
        tuple(name.replace("_", " ") for name in names),
        tuple(
            tuple(
                ("~" if row.get("noisy") and at == len(names) - 1 else "") + _cell(row[name])
                for at, name in enumerate(names)
            )
            for row in rows
        ),
        remarks,
        goals,
        {"rows": list(rows)},
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int | float) else str(value)
