"""How long to leave a feed alone after it failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Pauses"]

_DAY: Final = 86400.0


@dataclass(slots=True)
class Pauses:
    """Exponential pauses in seconds, jittered so that many nodes do not come back at once.

    ``jitter`` gives a number from 0 up to 1; a pause grows by up to a quarter of itself, and
    never shrinks, since a feed may have said how long to wait.
    """

    jitter: Callable[[], float]
    first: float = 10.0
    ceiling: float = 900.0
    failures: int = 0

    def after_failure(self, at_least: float = 0.0) -> float:
        """Give the pause after one more failure.

        Our own pauses grow up to the ceiling; what the feed asked for (``at_least``) is honoured
        up to a day.
        """
        pause = min(self.first * 2.0 ** min(self.failures, 20), self.ceiling)
        self.failures += 1
        return max(pause, min(at_least, _DAY)) * (1 + self.jitter() / 4)

    def success(self) -> None:
        """Begin anew with the shortest pause."""
        self.failures = 0
