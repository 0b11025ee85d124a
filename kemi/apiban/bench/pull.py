"""How long a node takes to load a list under the API's rate limit, beside the published recipe.

Both clocks, the API's limit and the recipe's interval, run ``scale`` times as fast; what is not a
clock (starting, ticks, parsing, publishing) runs as it always does. So the real time is the
measured one, with each wait on a clock made as long as it really is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from apiban.bench.api import Api, Limit, pages_of
from apiban.bench.enforce import feed_settings
from apiban.bench.lists import addresses
from apiban.bench.machine import BenchError
from apiban.bench.nodes import Node
from apiban.bench.recipe import RECIPE_INTERVAL, entries, ours, recipe
from apiban.errors import ApibanError
from apiban.feed.answer import LARGEST_PAGE
from apiban.gate import Board
from apiban.snapshot import map_snapshot

__all__ = ["OURS_WAITS", "RECIPE_WAITS", "Load", "Plan", "Pull", "Waits", "measure_pull"]

REQUESTS: Final = 5
WINDOW: Final = 120.0
_NAMES: Final = {True: "htable recipe", False: "ours"}


@dataclass(frozen=True, slots=True)
class Waits:
    """On which clock somebody waits, in real seconds, and how often for so many pages."""

    seconds: float
    count: Callable[[int], int]


# The recipe asks for one page at the end of each interval, the first one too; ours for five at
# once, and for five more whenever the first of the last five is a window old.
RECIPE_WAITS: Final = Waits(RECIPE_INTERVAL, lambda pages: pages)
OURS_WAITS: Final = Waits(WINDOW, lambda pages: (pages - 1) // REQUESTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A list to load, by whom, and how many times as fast the clocks run if it is measured.

    Ours cannot run more than 120 times as fast: ``feed.window`` is a second at least.
    """

    with_recipe: bool
    ranges: int
    scale: float = 1.0

    @property
    def waits(self) -> Waits:
        """What it waits for."""
        return RECIPE_WAITS if self.with_recipe else OURS_WAITS

    @property
    def pages(self) -> int:
        """How many requests bring the whole list."""
        return -(-self.ranges // LARGEST_PAGE)

    @property
    def waiting(self) -> float:
        """The real seconds that it waits."""
        return self.waits.count(self.pages) * self.waits.seconds

    def real(self, measured: float) -> float:
        """Give the real seconds for those measured with the clocks at their scale."""
        return measured + self.waiting * (1 - 1 / self.scale)


@dataclass(frozen=True, slots=True)
class Load:
    """How a list was loaded, from the start of Kamailio until all of it was in force.

    Where nothing was measured, ``measured`` is None, and ``real`` the waits alone.
    """

    plan: Plan
    requests: int
    refused: int
    measured: float | None
    real: float

    def row(self) -> dict[str, object]:
        """Give it as plain data; times are in seconds."""
        return {
            "setup": _NAMES[self.plan.with_recipe],
            "ranges": self.plan.ranges,
            "requests": self.requests,
            "refused": self.refused,
            "scale": self.plan.scale if self.measured is not None else None,
            "measured_seconds": None if self.measured is None else round(self.measured, 2),
            "real_seconds": round(self.real, 1),
        }


@dataclass(frozen=True, slots=True)
class Pull:
    """All loads."""

    loads: tuple[Load, ...]

    def rows(self) -> list[dict[str, object]]:
        """Give them as plain data."""
        return [load.row() for load in self.loads]


def measure_pull(
    folder: Path,
    plans: Sequence[Plan],
    *,
    computed: Sequence[Plan] = (),
    allocator: str,
    say: Callable[[str], None],
) -> Pull:
    """Run all plans at the same time, since they mostly wait; reckon those of ``computed``.

    Raises:
        BenchError: a list was not loaded in three times the time that its waits take.

    """

    def run(numbered: tuple[int, Plan]) -> Load:
        number, plan = numbered
        load = _load(folder / f"pull-{number}", plan, allocator)
        say(f"{_NAMES[plan.with_recipe]}: {plan.ranges} loaded")
        return load

    with ThreadPoolExecutor(len(plans)) as pool:
        loads = list(pool.map(run, enumerate(plans)))
    return Pull((*loads, *(Load(one, one.pages, 0, None, one.waiting) for one in computed)))


def _load(folder: Path, plan: Plan, allocator: str) -> Load:
    limit = Limit(REQUESTS, WINDOW / plan.scale, now=time.perf_counter)
    with Api(pages_of(addresses(0, plan.ranges)), limit) as api:
        node = _node(folder, plan, api, allocator)
        began = time.perf_counter()
        with node:
            _wait_until_loaded(node, folder / "runtime", plan, api)
            measured = time.perf_counter() - began
            last = api.pages[plan.pages - 1].answered
            requests = sum(one.answered <= last for one in api.exchanges)
        return Load(plan, requests, api.refused, measured, plan.real(measured))


def _node(folder: Path, plan: Plan, api: Api, allocator: str) -> Node:
    if plan.with_recipe:
        setup = recipe(api.base, interval=RECIPE_INTERVAL / plan.scale)
        return Node(setup, folder, (), allocator=allocator, options=("-m", "256"))
    window = WINDOW / plan.scale
    settings = feed_settings(api.base, requests=REQUESTS, window=window, interval=window)
    setup = ours()
    return Node(setup, folder, (), allocator=allocator, settings=settings)


def _wait_until_loaded(node: Node, runtime: Path, plan: Plan, api: Api) -> None:
    give_up = time.perf_counter() + 3 * plan.waiting / plan.scale + 30
    while len(api.pages) < plan.pages or not _is_loaded(node, runtime, plan):
        if time.perf_counter() > give_up:
            raise BenchError(f"{_NAMES[plan.with_recipe]}: {plan.ranges} not loaded in time")
        time.sleep(0.02)


def _is_loaded(node: Node, runtime: Path, plan: Plan) -> bool:
    """Tell whether the whole list is in force: in the table, or in the published snapshot."""
    if plan.with_recipe:
        return entries(node) >= plan.ranges
    try:
        return len(map_snapshot(Board.open(runtime / "counters").memory_path)) >= plan.ranges
    except ApibanError:
        return False  # there is none yet, or it is just replaced
