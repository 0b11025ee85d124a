"""Flatten bans into sorted, disjoint ranges, and cut what is allowed out of them.

Overlaps are settled here, once, so that the look-up of a packet's source needs one bisect:
where bans overlap the longest one wins and gives its origin, and an allowed address inside a
banned range is a hole.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

__all__ = ["Range", "Ranges", "compile_ranges"]

# (first, last, expires, origin): both ends inside, as integers; expires in seconds since 1970,
# origin as in origin.py.
Range = tuple[int, int, int, int]
Ranges = list[Range]


def compile_ranges(bans: Iterable[Range], allowed: Iterable[tuple[int, int]]) -> Ranges:
    """Give the sorted, disjoint ranges of one family: the bans without the allowed.

    ``bans`` must come sorted by their first address; ``allowed`` in any order.
    Neighbours with the same expiry and origin are merged; of bans with the same expiry the lowest
    origin's wins.
    """
    return list(_merge(_subtract(_flatten(bans), _union(allowed))))


def _flatten(bans: Iterable[Range]) -> Iterator[Range]:
    """Sweep over the bans; at each point the active one that expires last holds."""
    active: list[tuple[int, int, int]] = []  # a heap of (-expires, origin, last)
    position = 0
    for first, last, expires, origin in bans:
        while active and position < first:
            longest, by, end = active[0]
            if end < position:
                heapq.heappop(active)
                continue
            stop = min(end, first - 1)
            yield position, stop, -longest, by
            position = stop + 1
        position = first
        heapq.heappush(active, (-expires, origin, last))
    while active:
        longest, by, end = heapq.heappop(active)
        if end >= position:
            yield position, end, -longest, by
            position = end + 1


def _union(blocks: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(blocks):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _subtract(ranges: Iterable[Range], holes: list[tuple[int, int]]) -> Iterator[Range]:
    at = 0
    for first, last, expires, origin in ranges:
        while at < len(holes) and holes[at][1] < first:
            at += 1
        start, hole = first, at
        while hole < len(holes) and holes[hole][0] <= last:
            if start < holes[hole][0]:
                yield start, holes[hole][0] - 1, expires, origin
            start = max(start, holes[hole][1] + 1)
            hole += 1
        if start <= last:
            yield start, last, expires, origin


def _merge(ranges: Iterable[Range]) -> Iterator[Range]:
    held: Range | None = None
    for following in ranges:
        if held and held[1] + 1 == following[0] and held[2:] == following[2:]:
            held = (held[0], following[1], *held[2:])
            continue
        if held:
            yield held
        held = following
    if held:
        yield held
