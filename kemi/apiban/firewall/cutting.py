"""When connections of the newly banned are cut: at once, and then all that came in ten seconds."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, Protocol

from apiban.clock import Clock
from apiban.firewall.conntrack import Cut
from apiban.firewall.elements import Block, Elements
from apiban.firewall.rules import Port
from apiban.firewall.trouble import Troubles

__all__ = ["CutOff", "Cutting"]

# Each cut looks through all that conntrack knows, hundreds of thousands of connections in a flood.
_EVERY: Final = 10.0
# More than these are not remembered: all that the kernel bans is looked for then.
_MOST: Final = 65_536


class CutOff(Protocol):
    """Removes the connections of blocks that were just banned: ``conntrack.cut``."""

    def __call__(
        self, blocks: Collection[Block], *, allowed: Collection[Block], ports: tuple[Port, ...]
    ) -> Cut:
        """Remove those to these ports, but none of the allowed's; no ports are all."""
        ...


class Cutting:
    """Collects whom to cut off. ``removed`` is the number of connections removed so far."""

    def __init__(self, cut_off: CutOff, *, clock: Clock, troubles: Troubles) -> None:
        self._cut_off = cut_off
        self._clock = clock
        self._troubles = troubles
        self._new: set[Block] = set()
        self._all = False  # there were too many of them
        self._from = 0.0  # an uptime
        self.removed = 0

    def collect(self, blocks: Iterable[Block]) -> None:
        """Take blocks that are banned from now on."""
        if not self._all:
            self._new.update(blocks)
        if len(self._new) > _MOST:
            self._new, self._all = set(), True

    def forget(self) -> None:
        """Cut nobody off of those who were collected."""
        self._new, self._all = set(), False

    def look(
        self, banned: Elements, *, allowed: Collection[Block], ports: tuple[Port, ...]
    ) -> None:
        """Cut off who was collected and still is banned, if it is time."""
        uptime = self._clock.uptime()
        if uptime < self._from or not (self._new or self._all):
            return
        self._from = uptime + _EVERY
        blocks = self._chosen(banned)
        self.forget()
        found = self._cut_off(blocks, allowed=allowed, ports=ports)
        self.removed += found.removed
        if found.trouble:
            effect = "they stay known; the sets drop what comes by them"
            self._troubles.tell("conntrack", found.trouble, effect=effect)
        else:
            self._troubles.over("conntrack")

    def _chosen(self, banned: Elements) -> Collection[Block]:
        return banned.keys() if self._all else self._new & banned.keys()
