"""A set of networks that can be asked what touches it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from apiban.address import Family, Network

__all__ = ["Ranges"]


class Ranges:
    """Networks of both families; a question takes one bisect."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._firsts: dict[Family, list[int]] = {4: [], 6: []}
        self._lasts: dict[Family, list[int]] = {4: [], 6: []}
        for one in sorted(networks):
            lasts = self._lasts[one.family]
            self._firsts[one.family].append(one.first)
            lasts.append(max(one.last, lasts[-1] if lasts else 0))

    def __len__(self) -> int:
        return sum(map(len, self._firsts.values()))

    def overlaps(self, network: Network) -> bool:
        """Tell whether a network has an address in common with one of them."""
        at = bisect_right(self._firsts[network.family], network.last)
        # The lasts only grow: of all that begin before, the one before this point ends last.
        return at > 0 and self._lasts[network.family][at - 1] >= network.first
