"""How long a new page takes from the feed's answer until every worker drops who is on it.

Seen from outside: the source asks many times a second, and is answered by whichever worker takes
its packet. From the first question on after which none is answered, though each worker took some,
the page is in force everywhere.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from apiban.bench.api import API_KEY, Api, HeldPages
from apiban.bench.lists import Listing, addresses
from apiban.bench.machine import BenchError
from apiban.bench.nodes import Node, Setup
from apiban.bench.probe import Asker, Prober
from apiban.bench.recipe import entries, ours, recipe
from apiban.feed.answer import LARGEST_PAGE

__all__ = ["Enforcement", "feed_settings", "measure_enforcement"]

_RATE: Final = 100.0  # questions a second and worker
_SILENCE: Final = 0.25
_CONTROL: Final = "127.0.11.1"
_TICK: Final = 0.2
_PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Enforcement:
    """Seconds from the answer's last byte to the drop in all workers, one a page."""

    setup: str
    allocator: str
    ranges: int
    workers: int
    seconds: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """Give the time within which this share of the pages was in force (nearest rank)."""
        return sorted(self.seconds)[max(0, math.ceil(share * len(self.seconds)) - 1)]

    def row(self) -> dict[str, object]:
        """Give it as plain data."""
        return {
            "setup": self.setup,
            "allocator": self.allocator,
            "ranges": self.ranges,
            "workers": self.workers,
            "pages": len(self.seconds),
            "p50_seconds": round(self.quantile(0.5), 3),
            "p99_seconds": round(self.quantile(0.99), 3),
            "max_seconds": round(max(self.seconds), 3),
        }


def feed_settings(base: str, *, requests: int, window: float, interval: float) -> str:
    """Give the ``[feed]`` section of a node's settings."""
    return (
        f'[feed]\nurl = "{base}"\nkey = "{API_KEY}"\naccept_private = true\n'
        f"requests = {requests}\nwindow = {window}\ninterval = {interval}\n"
    )


def measure_enforcement(  # noqa: PLR0913 - each is one thing a caller varies
    folder: Path,
    *,
    allocator: str,
    ranges: int,
    workers: int,
    pages: int,
    with_recipe: bool,
    say: Callable[[str], None],
) -> Enforcement:
    """Release so many pages, one after the other, to a node that has ``ranges`` already.

    Pages are full, and the source that is watched is the last of its page.

    Raises:
        BenchError: a page was not in force in time.

    """
    held = HeldPages()
    with ExitStack() as stack:
        api = stack.enter_context(Api(held))
        stack.callback(held.close)
        if with_recipe:
            setup = recipe(api.base, interval=_TICK, fill=ranges)
            settings = ""
        else:
            setup = ours()
            settings = feed_settings(api.base, requests=10_000, window=1, interval=1)
            listing = Listing.make(folder / "list", ranges, settings)
            listing.publish()
        node = _node(setup, folder / "node", settings, allocator=allocator, workers=workers)
        if not with_recipe:
            listing.copy_to(folder / "node")
        stack.enter_context(node)
        _wait_until_filled(node, held, ranges if with_recipe else 0)
        releases = _Releases(node, node.workers(), api, held)
        chance = random.Random(ranges)  # noqa: S311 - when to release, not a secret
        times = []
        for number in range(pages):
            page = addresses(ranges + number * LARGEST_PAGE, LARGEST_PAGE - 1)
            source = f"127.30.{number // 250}.{number % 250 + 1}"
            phase = chance.random() * _TICK
            times.append(releases.time((*page, source), phase))
            if (number + 1) % 25 == 0:
                say(f"{setup.name}, {workers} workers: page {number + 1} of {pages}")
    return Enforcement(setup.name, allocator, ranges, workers, tuple(times))


def _node(setup: Setup, folder: Path, settings: str, *, allocator: str, workers: int) -> Node:
    return Node(
        setup,
        folder,
        (),
        allocator=allocator,
        workers=workers,
        settings=settings,
        options=("-m", "256"),
    )


def _wait_until_filled(node: Node, held: HeldPages, fill: int) -> None:
    give_up = time.perf_counter() + _PATIENCE
    while fill and entries(node) < fill:
        if time.perf_counter() > give_up:
            raise BenchError("the recipe's table is not filled in time")
        time.sleep(0.1)
    if not held.wait_for_asker(_PATIENCE):
        raise BenchError("the node does not ask the API")


@dataclass(frozen=True, slots=True)
class _Releases:
    """A node that asks its API for pages, and gets them one by one."""

    node: Node
    pids: list[int]
    api: Api
    held: HeldPages

    def time(self, page: Sequence[str], phase: float) -> float:
        """Release a page; give the seconds until its last address is dropped by all workers."""
        if not self.held.wait_for_asker(_PATIENCE):
            raise BenchError("the node does not ask the API")
        target, pids = self.node.target, self.pids
        with Asker(page[-1], target) as watched, Asker(_CONTROL, target) as control:
            prober = Prober(watched, control, rate=_RATE * len(pids))
            prober.ask_until(lambda: watched.workers.issuperset(pids), "an answer by each worker")
            release_at = time.perf_counter() + phase
            prober.ask_until(lambda: time.perf_counter() >= release_at, "the moment to release")
            before = len(self.api.pages)
            self.held.release(page)
            silence = _Silence(watched, control, pids)
            prober.ask_until(silence.lasts, "silence for the page's last address")
            silent_from = watched.silent_from
        seconds = silent_from - self.api.pages[before].answered
        if seconds < -1 / _RATE:
            raise BenchError("the source was silent before its page was there")
        return max(0.0, seconds)


class _Silence:
    """Whether one source met silence for long enough, while each worker answered another one."""

    def __init__(self, watched: Asker, control: Asker, pids: list[int]) -> None:
        self._watched = watched
        self._control = control
        self._pids = pids
        self._since = 0.0

    def lasts(self) -> bool:
        """Tell whether it did."""
        since = self._watched.silent_from
        if self._watched.answered + 1 == len(self._watched.sent) or since != self._since:
            self._since = since
            self._control.workers.clear()
        long_enough = time.perf_counter() - since > _SILENCE
        return long_enough and self._control.workers.issuperset(self._pids)
