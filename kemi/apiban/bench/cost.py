"""Parts of the report: what a drop costs, what a good request pays, and a list in the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from apiban.bench.drops import CROWDED, NFTABLES, measure_drops, measure_kernel_drops
from apiban.bench.firewall import CHANGED, PROCESSES, measure_lists
from apiban.bench.firewall import NFTABLES as OUR_NFTABLES
from apiban.bench.good import ALONE, measure_calls, measure_requests
from apiban.bench.lists import CROWDING, LISTED
from apiban.bench.nodes import (
    FLOOR,
    HTABLE_ALONE,
    HTABLE_EARLY,
    NATIVE,
    OURS,
    OURS_ALONE,
    OURS_NATIVE,
    PYTHON,
    RECIPE,
)
from apiban.bench.report import Goal, Part, figure_data, figure_text
from apiban.bench.rounds import Figure

__all__ = ["cost_of_calls", "cost_of_drops", "cost_of_lists", "cost_of_requests"]

Say = Callable[[str], None]

# At most so much of another set-up's cost; the recipe's depends on the allocator.
_OF_RECIPE = {"qm": 0.30, "tlsf": 0.85}
_OF_HTABLE = 1.3
_OF_FLOOR = 1.6
_OF_ADDED = 1.5
_OF_CALL = 1.03
# CPU seconds, with so many addresses.
_MANY = 100_000
_LOADED = 5.0
_CHANGED = 0.2


def cost_of_drops(
    folder: Path, *, allocator: str, packets: int, rounds: int, say: Say
) -> list[Part]:
    """Measure what a dropped packet costs."""
    found = dict(
        measure_drops(folder, allocator=allocator, packets=packets, rounds=rounds, say=say)
    )
    found |= measure_kernel_drops(packets=packets, rounds=rounds, say=say)
    ours = found[OURS]
    ratios = (
        (RECIPE, _OF_RECIPE[allocator]),
        (HTABLE_EARLY, _OF_HTABLE),
        (FLOOR, _OF_FLOOR),
    )
    part = Part(
        f"A dropped packet (-x {allocator})",
        ("set-up", "CPU us", "of the floor"),
        tuple(
            (name, figure_text(figure), _of_floor(name, figure, found))
            for name, figure in sorted(found.items(), key=lambda one: one[1].median)
        ),
        (
            "CPU time of the worker for a packet of a flood that saturates it",
            f"{len(LISTED)} sources flood in turn: where ours has its front, that answers for them",
            f"{CROWDED}: {len(CROWDING):,} flood in turn, more than the front takes",
            "for nftables that of the core that receives, beyond a drop where the packet comes in",
        ),
        tuple(
            Goal.of(f"a drop, of {other} (-x {allocator})", ours.per(found[other]), limit)
            for other, limit in ratios
        ),
        _plain(found),
    )
    return [part]


def cost_of_requests(
    folder: Path, *, allocator: str, packets: int, rounds: int, say: Say
) -> list[Part]:
    """Measure what the check adds to a good request."""
    found = measure_requests(folder, allocator=allocator, packets=packets, rounds=rounds, say=say)
    added = {name: figure.minus(found[_without(name)]) for name, figure in found.items()}
    ours, htable = added[OURS_ALONE], added[HTABLE_ALONE]
    part = Part(
        f"A good request: OPTIONS answered 200 (-x {allocator})",
        ("set-up", "CPU us", "added by the check"),
        tuple((name, figure_text(found[name]), f"{added[name].median:.2f}") for name in found),
        (
            "added: beyond the same configuration without a check",
            f"{len(LISTED)} sources ask in turn: where ours has its front, that answers for them",
            "a check alone: beyond a bare drop, which is the surer figure",
        ),
        (
            Goal.of(
                f"added to a good request, of what a native htable look-up adds (-x {allocator})",
                ours.per(htable),
                _OF_ADDED,
                noisy=ours.noisy or htable.noisy,
            ),
        ),
        _plain(found),
    )
    return [part]


def cost_of_calls(folder: Path, *, allocator: str, calls: int, rounds: int, say: Say) -> list[Part]:
    """Measure what the check adds to a call through a stateful proxy."""
    found = measure_calls(folder, allocator=allocator, calls=calls, rounds=rounds, say=say)
    part = Part(
        f"A proxied call, INVITE to BYE (-x {allocator})",
        ("set-up", "CPU us", "of that without a check"),
        tuple(
            (name, figure_text(figure, 0), f"{figure.per(found[NATIVE]).median:.3f}")
            for name, figure in found.items()
        ),
        (),
        (
            Goal.of(
                f"a proxied call, of one without us (-x {allocator})",
                found[OURS_NATIVE].per(found[NATIVE]),
                _OF_CALL,
            ),
        ),
        _plain(found),
    )
    return [part]


def cost_of_lists(folder: Path, *, quick: bool, say: Say) -> list[Part]:
    """Measure what it costs to have a list in the kernel."""
    found = measure_lists(
        folder,
        count=_MANY // 20 if quick else _MANY,
        sampled=20 if quick else 500,
        rounds=2 if quick else 9,
        say=say,
    )
    columns = {"load": found.load, "change": found.change, "restart": found.restart}
    names = sorted(found.load, key=lambda name: found.load[name].median)
    goals = (
        (f"CPU seconds to load {_MANY:,} addresses", found.load[OUR_NFTABLES], _LOADED),
        (f"CPU seconds to change {CHANGED} of them", found.change[OUR_NFTABLES], _CHANGED),
    )
    part = Part(
        f"A list of {found.addresses:,} addresses in the kernel",
        ("way", "CPU s to load", f"{CHANGED} come and {CHANGED} go", "restart"),
        tuple(
            (name, *(_seconds(by_name.get(name)) for by_name in columns.values())) for name in names
        ),
        (
            "from the published list's file to the kernel, with all processes that are started",
            f"{PROCESSES}: {found.sampled:,} were measured, and reckoned up to the list's length",
            "restart: what the kernel holds is read back, and nothing is to be changed",
        ),
        tuple(Goal.of(*goal) for goal in goals) if found.addresses == _MANY else (),
        {name: _plain(by_name) for name, by_name in columns.items()},
    )
    return [part]


def _seconds(figure: Figure | None) -> str:
    return "-" if figure is None else figure_text(figure, 3)


def _of_floor(name: str, figure: Figure, found: Mapping[str, Figure]) -> str:
    """Give the ratio to the floor's cost, which is the worker's: nftables has none of that."""
    return "-" if name == NFTABLES else f"{figure.per(found[FLOOR]).median:.3f}"


def _plain(found: Mapping[str, Figure]) -> dict[str, object]:
    return {name: figure_data(figure) for name, figure in found.items()}


def _without(name: str) -> str:
    """Name the set-up that lacks the check of another one."""
    if name in ALONE:
        return FLOOR
    return PYTHON if name in {PYTHON, OURS} else NATIVE
