"""The never-list: networks that nothing may list, from a file that the operator edits."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from apiban.address import Family, Network
from apiban.errors import ApibanError
from apiban.feed.server.listfile import read_list
from apiban.settings.watch import FileWatch

__all__ = ["SHIPPED", "NeverList"]

# Public resolvers and some carriers: where an operator begins.
SHIPPED: Final = Path(__file__).with_name("never-list.txt")

Say = Callable[..., None]


class NeverList:
    """The networks of one file, read again when it was changed.

    A change that cannot be read is said, and the last good list stays.

    Raises:
        ApibanError: the file cannot be read at the start.

    """

    def __init__(self, path: Path | None, log: Say) -> None:
        self._path = path or SHIPPED
        self._log = log
        self._watch = FileWatch(self._path)
        self.networks: tuple[Network, ...] = ()
        self._ranges: dict[Family, tuple[list[int], list[int]]] = {}
        self._use(read_list(self._path))

    def refresh(self) -> bool:
        """Read the file again if it is another one; tell whether the list changed."""
        if not self._watch.changed():
            return False
        try:
            networks = read_list(self._path)
        except ApibanError as error:
            self._log("never-list-refused", reason=error, effect="the last good one stays")
            return False
        self._use(networks)
        self._log("never-list", networks=len(self.networks))
        return True

    def overlaps(self, network: Network) -> bool:
        """Tell whether a network has an address in common with the list."""
        firsts, lasts = self._ranges.get(network.family, ((), ()))
        at = bisect_right(firsts, network.last)
        # ``lasts`` only grows, so the range before this point ends last of all that begin before.
        return at > 0 and lasts[at - 1] >= network.first

    def _use(self, networks: Iterable[Network]) -> None:
        self.networks = tuple(networks)
        families: tuple[Family, ...] = (4, 6)
        for family in families:
            firsts: list[int] = []
            lasts: list[int] = []
            for one in sorted(one for one in self.networks if one.family == family):
                firsts.append(one.first)
                lasts.append(max(one.last, lasts[-1] if lasts else 0))
            self._ranges[family] = (firsts, lasts)
