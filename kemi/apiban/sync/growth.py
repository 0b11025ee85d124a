"""How much a list may grow in a day: one that doubles overnight is more likely wrong than right.

The first load is not held to it, nor is growth by a few, however short the list is.
"""

from __future__ import annotations

from typing import Final

from apiban.clock import Clock

__all__ = ["Growth"]

_DAY: Final = 86400.0
_ALWAYS: Final = 1000


class Growth:
    """Counts what is new in a day; ``share`` of the list's length at its begin may be, 0: any."""

    def __init__(self, clock: Clock, share: float) -> None:
        self._clock = clock
        self._share = share
        self._began = 0.0
        self._length: int | None = None
        self._new = 0

    def may_grow(self, length: int, new: int) -> bool:
        """Tell whether a list of ``length`` may take ``new`` more today."""
        now = self._clock.uptime()
        if self._length is None or now - self._began >= _DAY:
            self._began, self._length, self._new = now, length, min(self._new, 0)
        return not self._share or self._new + new <= max(_ALWAYS, self._length * self._share)

    def took(self, new: int) -> None:
        """Count what was taken."""
        self._new += new

    def accept(self, waiting: int) -> None:
        """Let in what waits, and by as much again as in a day, from what the list is by now."""
        self._length = None
        self._new = -waiting
