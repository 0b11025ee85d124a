"""The tally: how one worker counts what it drops for each source.

What goes through the look-up is counted at once. A source that the worker has in its cache is on
the hot path, where looking for its place would cost more than the verdict: of these drops one in
``_EVERY`` is taken at random, and counts for all that there were since the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from apiban.address import pack
from apiban.gate.hits import DROPPED, WOULD_DROP, Details, Hits, Place

__all__ = ["Tally"]

_EVERY: Final = 64  # on average; a power of 2
_KNOWN: Final = 4096  # sources whose place a worker remembers


@dataclass(slots=True)
class _Known:
    place: Place
    origin: int
    minute: float = 0.0


class Tally:
    """Counts for one process."""

    def __init__(self, hits: Hits, *, now: Callable[[], float]) -> None:
        self._hits = hits
        self._now = now
        self._known: dict[str, _Known] = {}
        self._word = DROPPED
        self._counter = -1
        self._last = 0
        self._random = 1

    def begin(self, counter: int, count: int, *, would_drop: bool) -> None:
        """Sample from a counter of the worker's cached sources that stands at ``count`` now.

        ``counter`` names it: what the same one counted before and was not sampled yet is kept.
        ``would_drop`` tells what becomes of those sources: they are let through, and counted.
        """
        if counter != self._counter:
            self._counter = counter
            self._last = count
        self._word = WOULD_DROP if would_drop else DROPPED

    def met(
        self,
        source: str,
        origin: int,
        describe: Callable[[], Details],
        *,
        would_drop: bool,
        counted: bool,
    ) -> bool:
        """Count one message; tell whether it is the source's first in this minute, for all I know.

        ``describe`` is asked about the message if the source is new. ``counted`` tells that it is
        part of the count that ``sample`` is given.
        """
        self._last += counted
        now = self._now()
        known = self._count(source, origin, describe, WOULD_DROP if would_drop else DROPPED, 1, now)
        if known is None:
            return True
        minute = now // 60
        if known.minute == minute:
            return False
        known.minute = minute
        return True

    def sample(self, source: str, count: int) -> int:
        """Count for a cached source all since the last sample; give the count for the next one."""
        number, self._last = count - self._last, count
        if number > 0:
            known = self._count(source, None, Details, self._word, number, self._now())
            if known is not None and number > 1:
                self._hits.estimate(known.place)
        self._random = (self._random * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
        return count + 1 + (self._random >> 16 & 2 * _EVERY - 1)

    def _count(  # noqa: PLR0913, PLR0917 - for three callers of its own
        self,
        source: str,
        origin: int | None,
        describe: Callable[[], Details],
        word: int,
        number: int,
        now: float,
    ) -> _Known | None:
        """Count at the source's place; None when there is none for it.

        Without an origin that of before holds: a source that is not known then is a feed's.
        """
        hits = self._hits
        known = self._known.get(source)
        if (
            known is not None
            and (origin == known.origin or origin is None)
            and hits.add(known.place, word, number, now=now)
        ):
            return known
        place = hits.place(pack(source), origin, describe, now=now)
        if place is None:
            return None
        hits.add(place, word, number, now=now)
        if len(self._known) >= _KNOWN:
            self._known.clear()
        known = self._known[source] = _Known(place, hits.origin(place))
        return known
