"""The look-up of one process: whether a source is banned now.

The hot path is ``Gate.listed``, a TTLCache of sources that this process found banned; the KEMI
guard reads it directly, since under a flood one call more would be a tenth of the whole cost. A
source that is not in it goes through ``origin``: one bisect in the mapped snapshot. ``Gate.others``
tells which of them another origin than a feed bans, which are counted apart: often it is empty.

The cache may not outlive a ban: it is cleared when a new snapshot comes, and takes no source whose
ban ends within its own time to live and that of the front, which is filled from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cachetools import TTLCache

from apiban.gate.front import FRONT_SECONDS
from apiban.settings.model import Mode
from apiban.snapshot import Origin, Snapshot

__all__ = ["Gate"]

# Enough for the sources that flood at one time; a source beyond that costs its bisect again.
CACHED_SOURCES: Final = 32_768
CACHED_SECONDS: Final = 60.0


class Gate:
    """Looks sources up in the snapshot that it was given last."""

    def __init__(self, *, now: Callable[[], float], timer: Callable[[], float]) -> None:
        self._now = now
        self.snapshot: Snapshot | None = None
        self.looks_up = False  # whether a look-up is worth while at all
        self.listed: TTLCache[str, bool] = TTLCache(CACHED_SOURCES, CACHED_SECONDS, timer=timer)
        # It says nothing of a source that is not, or no longer, in ``listed``.
        self.others: dict[str, int] = {}

    def use(self, snapshot: Snapshot | None) -> None:
        """Look up in this snapshot from now on; None lets everything through."""
        self.snapshot = snapshot
        self.looks_up = self.mode is not Mode.OFF
        self.listed.clear()
        self.others.clear()

    @property
    def mode(self) -> Mode:
        """What happens to a listed source."""
        return self.snapshot.mode if self.snapshot is not None else Mode.OFF

    @property
    def generation(self) -> int:
        """Which snapshot is in use; 0 when there is none."""
        return self.snapshot.generation if self.snapshot is not None else 0

    def is_banned(self, source: str) -> bool:
        """Tell whether the source is banned now."""
        return self.origin(source) is not None

    def origin(self, source: str) -> int | None:
        """Give the number of the origin that bans the source now, and remember it; None: nobody."""
        snapshot = self.snapshot
        if snapshot is None:
            return None
        found = snapshot.find(source)
        if found is None:  # nearly every source that comes here: it costs no look at the clock
            return None
        expires, origin = found
        left = expires - self._now()
        if left <= 0:
            return None
        if left > CACHED_SECONDS + FRONT_SECONDS + 1:  # Kamailio's clock has whole seconds
            self._remember(source, origin)
        return origin

    def forget(self, source: str) -> None:
        """Look the source up anew at its next message."""
        self.listed.pop(source, None)
        self.others.pop(source, None)

    def _remember(self, source: str, origin: int) -> None:
        if origin == Origin.FEED:
            self.others.pop(source, None)
        elif len(self.others) < CACHED_SOURCES:
            self.others[source] = origin
        else:
            return  # to be looked up each time
        self.listed[source] = True
