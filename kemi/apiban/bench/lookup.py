"""What a longer list costs in one process: to look an address up, and to build the snapshot."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from apiban.bench.lists import Listing, address, unlisted
from apiban.bench.machine import BenchError
from apiban.bench.rounds import Figure, alternate
from apiban.gate import Gate
from apiban.snapshot import Snapshot, load_snapshot
from apiban.snapshot.publish import durable_path

__all__ = ["AGAIN", "FIRST_MET", "LISTED", "UNLISTED", "Build", "LookUp"]
__all__ += ["measure_builds", "measure_look_ups"]

_LOOK_UPS: Final = 20_000
_COMING_AGAIN: Final = 1000
# Addresses that come again and again, as phones and scanners do, and so many others, the same ones
# in each round, that each step of the look-up misses the CPU's nearer caches once the list is long.
AGAIN: Final = "unlisted, again"
UNLISTED: Final = "unlisted"
LISTED: Final = "listed"
FIRST_MET: Final = "listed, met first"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LookUp:
    """Nanoseconds a look-up of a random address, by what it finds."""

    ranges: int
    kind: str
    nanoseconds: Figure


@dataclass(frozen=True, slots=True)
class Build:
    """Seconds from the store to the announced snapshot: read, compile, encode, write."""

    ranges: int
    seconds: Figure


def measure_builds(listings: Mapping[int, Listing], rounds: int) -> tuple[Build, ...]:
    """Publish each list, as a node's sync does for each page."""

    def build(listing: Listing) -> float:
        began = time.perf_counter()
        listing.publish()
        return time.perf_counter() - began

    measures = {str(n): lambda one=one: build(one) for n, one in listings.items()}
    figures = alternate(measures, min(rounds, 3), say=lambda _: None)
    return tuple(Build(size, figures[str(size)]) for size in listings)


def measure_look_ups(listings: Mapping[int, Listing], rounds: int, say: Say) -> tuple[LookUp, ...]:
    """Look random addresses up in each list that was published."""
    measures: dict[str, Callable[[], float]] = {}
    keys = []
    for size, listing in listings.items():
        snapshot = load_snapshot(durable_path(listing.settings.paths.state))
        for kind, measure in _look_ups(snapshot, size).items():
            measures[f"{size} {kind}"] = measure
            keys.append((size, kind))
    figures = alternate(measures, rounds, say=say)
    return tuple(LookUp(size, kind, figures[f"{size} {kind}"]) for size, kind in keys)


def _look_ups(snapshot: Snapshot, size: int) -> dict[str, Callable[[], float]]:
    gate = Gate(now=time.time, timer=time.monotonic)
    gate.use(snapshot)
    chance = random.Random(size)  # noqa: S311 - which addresses, not a secret
    numbers = [chance.randrange(size) for _ in range(_LOOK_UPS)]
    listed, others = [address(one) for one in numbers], [unlisted(one) for one in numbers]
    again = others[:_COMING_AGAIN] * (_LOOK_UPS // _COMING_AGAIN)
    if any(map(snapshot.expires, others)) or not all(map(snapshot.expires, listed)):
        raise BenchError("the snapshot does not hold the list that it should")

    def first_met() -> float:
        gate.listed.clear()
        return _time_each(gate.origin, listed)

    return {
        AGAIN: lambda: _time_each(gate.origin, again),
        UNLISTED: lambda: _time_each(gate.origin, others),
        LISTED: lambda: _time_each(snapshot.find, listed),
        FIRST_MET: first_met,
    }


def _time_each(look_up: Callable[[str], object], sources: Sequence[str]) -> float:
    """Give the CPU nanoseconds a call, without the loop's own."""
    began = time.process_time_ns()
    for source in sources:
        look_up(source)
    middle = time.process_time_ns()
    for _ in sources:
        pass
    return (2 * middle - began - time.process_time_ns()) / len(sources)
