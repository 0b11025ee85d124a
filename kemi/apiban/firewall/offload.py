"""Which sources flood: those that Kamailio drops more of than it should have to.

What is in the kernel does not reach Kamailio any more, so nobody sees whether the flood goes on. A
source therefore goes out of the kernel ``flood_for`` after it was last seen: if it floods still,
Kamailio sees it at once, and it is back within a few seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from apiban.address import Network, parse_address
from apiban.firewall.elements import Block, Elements
from apiban.firewall.report import Flooding
from apiban.gate.hits import Hit

__all__ = ["Ban", "Offload"]

# Kamailio adds up what native code dropped once a second: a rate is taken over so many seconds.
_WINDOW: Final = 2.0

# When the ban of a source ends, in seconds since 1970; 0 when it is not listed, or exempt.
Ban = Callable[[str], int]


@dataclass(slots=True)
class _Look:
    uptime: float
    counts: dict[str, int] = field(default_factory=dict)


class Offload:
    """The flooding sources. ``look`` is called once a second."""

    def __init__(self) -> None:
        self._looks: deque[_Look] = deque()
        self._flooding: dict[str, Flooding] = {}

    def look(  # noqa: PLR0913 - what it compares
        self,
        hits: Iterable[Hit],
        *,
        ban: Ban,
        rate: float,
        lasts: float,
        now: float,
        uptime: float,
    ) -> bool:
        """Look at what Kamailio counted; tell whether a source came, went, or was seen again.

        In shadow mode what would be dropped counts. ``rate`` is ``firewall.flood_rate``, ``lasts``
        is ``firewall.flood_for``.
        """
        seen = _Look(uptime, {hit.source: hit.dropped + hit.would_drop for hit in hits})
        before = self._flooding
        self._flooding = self._still_banned(ban, now)
        if self._looks:
            for source, by in self._rates(seen).items():
                if by > rate and now < ban(source):
                    self._flooding[source] = Flooding(source, by, now + lasts)
        self._looks.append(seen)
        while len(self._looks) > 1 and self._looks[1].uptime <= uptime - _WINDOW:
            self._looks.popleft()
        return self._flooding != before

    def _rates(self, seen: _Look) -> dict[str, float]:
        """Give the packets a second of each source since the oldest look that counts."""
        old = self._looks[0]
        seconds = max(seen.uptime - old.uptime, _WINDOW / 2)
        rates = {}
        for source, count in seen.counts.items():
            known = old.counts.get(source, 0)
            # It had lost its place meanwhile, or Kamailio started anew: it counts from nothing.
            rates[source] = (count - known if known <= count else count) / seconds
        return rates

    def _still_banned(self, ban: Ban, now: float) -> dict[str, Flooding]:
        return {
            source: one
            for source, one in self._flooding.items()
            if now < one.until and now < ban(source)
        }

    def adopt(self, held: Iterable[tuple[Block, int]], *, lasts: float, now: float) -> None:
        """Take what the kernel holds since before this process: its flood may well go on."""
        for (family, first, last), end in held:
            if first == last and now < end <= now + lasts + 1:
                source = str(Network(family, first, last))
                self._flooding[source] = Flooding(source, 0.0, float(end))

    def elements(self, ban: Ban) -> Elements:
        """Give them for the kernel: each until it was not seen long enough, or its ban ends."""
        found: Elements = {}
        for source, one in self._flooding.items():
            address = parse_address(source)
            end = min(int(one.until), ban(source))
            if end:
                found[address.family, address.first, address.last] = end
        return found

    @property
    def flooding(self) -> tuple[Flooding, ...]:
        """The sources, that with the highest rate first."""
        return tuple(sorted(self._flooding.values(), key=lambda one: -one.rate))
