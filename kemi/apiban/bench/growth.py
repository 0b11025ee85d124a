"""What a longer list, and more workers, cost: time to look up, to build, to drop, and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from apiban.bench.api import Api, no_news
from apiban.bench.check import check_answers
from apiban.bench.drops import worker_cost
from apiban.bench.enforce import feed_settings
from apiban.bench.lists import FLOOD, FLOODING, Listing, address
from apiban.bench.lookup import Build, LookUp, measure_builds, measure_look_ups
from apiban.bench.machine import BenchError
from apiban.bench.memory import Memory, memory_of
from apiban.bench.nodes import PYTHON, SETUPS, Node
from apiban.bench.probe import reach_all
from apiban.bench.recipe import check_filled, entries, ours, recipe, shared_kib
from apiban.bench.rounds import Figure, alternate
from apiban.gate import Board

__all__ = ["Cost", "Growth", "Holding", "measure_growth", "measure_memory"]

# The recipe's table as published, and one that is large enough for a million.
_PUBLISHED: Final = 11
_LARGE: Final = 20
_FILL_TIMEOUT: Final = 180.0
_BURST: Final = 5  # packets of one source in a row: the next one's slot is not in a near cache

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds of a worker a dropped packet."""

    setup: str
    ranges: int
    microseconds: Figure


@dataclass(frozen=True, slots=True)
class Holding:
    """The memory of a node; ``shm`` is the most that Kamailio's shared memory held, in KiB."""

    setup: str
    ranges: int
    workers: int
    memory: Memory
    shm: float


@dataclass(frozen=True, slots=True)
class Growth:
    """All of it, for one allocator of Kamailio's."""

    allocator: str
    look_ups: tuple[LookUp, ...]
    builds: tuple[Build, ...]
    costs: tuple[Cost, ...]
    holdings: tuple[Holding, ...]

    def rows(self) -> dict[str, list[dict[str, object]]]:
        """Give a table each as plain data: ``look_up``, ``build``, ``drop``, ``memory``."""
        return {
            "look_up": [
                {"ranges": one.ranges, "source": one.kind, **_figure("ns", one.nanoseconds, 0)}
                for one in self.look_ups
            ],
            "build": [
                {"ranges": one.ranges, **_figure("seconds", one.seconds, 4)} for one in self.builds
            ],
            "drop": [
                {
                    "setup": one.setup,
                    "allocator": self.allocator,
                    "ranges": one.ranges,
                    **_figure("cpu_microseconds", one.microseconds, 2),
                }
                for one in self.costs
            ],
            "memory": [
                {
                    "setup": one.setup,
                    "allocator": self.allocator,
                    "ranges": one.ranges,
                    "workers": one.workers,
                    "worker_private_kib": round(one.memory.worker),
                    "total_mib": round(one.memory.total / 1024, 1),
                    "shm_mib": round(one.shm / 1024, 1),
                }
                for one in self.holdings
            ],
        }


def _figure(unit: str, figure: Figure, digits: int) -> dict[str, object]:
    return {unit: round(figure.median, digits), "noisy": figure.noisy}


def measure_growth(  # noqa: PLR0913 - each is one thing a caller varies
    folder: Path,
    *,
    allocator: str,
    sizes: Sequence[int],
    workers: Sequence[int],
    packets: int,
    rounds: int,
    say: Say,
) -> Growth:
    """Measure lists of these sizes with one worker, and one of 100,000 with so many workers.

    The 100,000 are the largest of ``sizes`` not above that. Every node runs at the same time while
    packets are dropped, in turn.

    Raises:
        BenchError: a node does not do what it should.

    """
    fixed = max(size for size in sizes if size <= 100_000 or size == min(sizes))
    with ExitStack() as stack:
        api = stack.enter_context(Api(no_news))
        feed = feed_settings(api.base, requests=5, window=120, interval=120)
        listings = {size: Listing.make(folder / f"list-{size}", size, feed) for size in sizes}
        say("the stores are filled")
        builds = measure_builds(listings, rounds)
        look_ups = measure_look_ups(listings, rounds, say)
        nodes = _Nodes(folder, allocator, api.base, feed, say)
        costs, holdings = _with_sizes(nodes, listings, packets, rounds)
        for count in workers:
            if count > 1:
                holdings += nodes.hold(listings[fixed], count)
    return Growth(allocator, look_ups, builds, costs, holdings)


def measure_memory(folder: Path, *, allocator: str, ranges: int, workers: int, say: Say) -> Growth:
    """Measure the memory alone, with one list and so many workers."""
    with Api(no_news) as api:
        feed = feed_settings(api.base, requests=5, window=120, interval=120)
        listing = Listing.make(folder / "list", ranges, feed)
        listing.publish()
        holdings = _Nodes(folder, allocator, api.base, feed, say).hold(listing, workers)
    return Growth(allocator, (), (), (), holdings)


# In Kamailio ------------------------------------------------------------------------------------


class _Nodes:
    """Makes nodes with lists; each has a folder of its own."""

    def __init__(self, folder: Path, allocator: str, api: str, feed: str, say: Say) -> None:
        self._folder = folder
        self._allocator = allocator
        self._api = api
        self._feed = feed
        self.say = say
        self._count = 0

    def ours(self, listing: Listing, workers: int) -> _Held:
        """Make a node of ours that starts with the list."""
        folder = self._next_folder()
        setup = ours()
        node = Node(
            setup, folder, (), allocator=self._allocator, workers=workers, settings=self._feed
        )
        listing.copy_to(folder)
        return _Held(node, listing, workers, folder / "runtime")

    def recipe(self, listing: Listing, workers: int, size: int) -> _Held:
        """Make a node with the recipe, which fills its table at its first tick."""
        node = Node(
            recipe(self._api, size=size, fill=listing.ranges),
            self._next_folder(),
            (),
            allocator=self._allocator,
            workers=workers,
            options=("-m", "1024"),
        )
        return _Held(node, listing, workers, None)

    def hold(self, listing: Listing, workers: int) -> tuple[Holding, ...]:
        """Measure the memory of both and of a script without any list, one after the other."""
        found = []
        for held in (self.ours(listing, workers), self.recipe(listing, workers, _PUBLISHED)):
            with held.node:
                held.settle()
                found.append(held.holding())
                self.say(f"{held.node.setup.name}, {workers} workers: memory")
        found.append(self._python_alone(workers))
        return tuple(found)

    def _python_alone(self, workers: int) -> Holding:
        """Measure a Kamailio whose Python script does nothing: no list can undercut it."""
        setup = SETUPS[PYTHON]
        node = Node(setup, self._next_folder(), (), allocator=self._allocator, workers=workers)
        with node:
            main = int((node.kamailio.folder / "pid").read_text(encoding="ascii"))
            memory = memory_of(main, node.workers(), None)
            return Holding(setup.name, 0, workers, memory, shared_kib(node))

    def _next_folder(self) -> Path:
        self._count += 1
        return self._folder / f"node-{self._count}"


@dataclass(frozen=True, slots=True)
class _Held:
    """A node and the list that it holds."""

    node: Node
    listing: Listing
    workers: int
    runtime: Path | None

    def settle(self) -> None:
        """Wait until it holds its list and each worker took a packet with it.

        Raises:
            BenchError: it never does.

        """
        give_up = time.monotonic() + _FILL_TIMEOUT
        while not self._has_list():
            if time.monotonic() > give_up:
                raise BenchError(f"{self.node.setup.name}: not filled within {_FILL_TIMEOUT:g} s")
            time.sleep(0.2)
        if self.runtime is None:
            check_filled(self.node, address(self.listing.ranges - 1))
        reach_all(self.node, self.node.workers())

    def _has_list(self) -> bool:
        if self.runtime is None:
            return entries(self.node) >= self.listing.ranges + len(FLOODING)
        # The list that it began with, and then the one that its own sync published.
        return Board.open(self.runtime / "counters").generation > self.listing.generation

    def holding(self) -> Holding:
        """Measure its memory."""
        main = int((self.node.kamailio.folder / "pid").read_text(encoding="ascii"))
        memory = memory_of(main, self.node.workers(), self.runtime)
        shm = shared_kib(self.node)
        return Holding(self.node.setup.name, self.listing.ranges, self.workers, memory, shm)


def _with_sizes(
    nodes: _Nodes, listings: Mapping[int, Listing], packets: int, rounds: int
) -> tuple[tuple[Cost, ...], tuple[Holding, ...]]:
    """Measure one worker of each set-up with each list."""
    with ExitStack() as stack:
        held: dict[str, _Held] = {}
        for listing in listings.values():
            for one in (
                nodes.ours(listing, 1),
                nodes.recipe(listing, 1, _PUBLISHED),
                nodes.recipe(listing, 1, _LARGE),
            ):
                held[f"{one.node.setup.name} {one.listing.ranges}"] = one
                stack.enter_context(one.node)
        for one in held.values():
            one.settle()
            check_answers(one.node.setup.name, one.node.target, "200", lists=True)
        holdings = tuple(one.holding() for one in held.values())
        measures = {
            name: partial(worker_cost, one.node, FLOOD, packets=packets, burst=_BURST)
            for name, one in held.items()
        }
        figures = alternate(measures, rounds, say=nodes.say)
    costs = tuple(
        Cost(one.node.setup.name, one.listing.ranges, figures[name]) for name, one in held.items()
    )
    return costs, holdings
