"""Where a ban comes from, as the snapshot and the counters tell it."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from apiban.store import DETECTOR, FEED_SOURCE, LOCAL

__all__ = ["NUMBERS", "Origin"]


class Origin(IntEnum):
    """Who banned a source; the number is what the snapshot's column holds."""

    FEED = 0
    LOCAL = 1
    DETECTOR = 2

    def __str__(self) -> str:
        return self.name.lower()

    @property
    def source(self) -> str:
        """The name of the origin's source in the store."""
        return _SOURCES[self]


_SOURCES: Final = {
    Origin.FEED: FEED_SOURCE,
    Origin.LOCAL: LOCAL,
    Origin.DETECTOR: DETECTOR,
}
# The number of each source's origin; plain numbers, since a list has a million of them.
NUMBERS: Final = {source: int(origin) for origin, source in _SOURCES.items()}
