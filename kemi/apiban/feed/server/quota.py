"""Never more than N requests in any W seconds for one key."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Quota"]

# Rounding may leave nothing of a wait, which would read as "let through".
_SHORTEST: Final = 0.001


class Quota:
    """A sliding window over the times of the requests that were let through."""

    def __init__(self, limit: int, window: float, timer: Callable[[], float]) -> None:
        self._limit = limit
        self._window = window
        self._timer = timer
        self._times: deque[float] = deque()

    def take(self) -> float:
        """Count a request: 0 lets it through, else give the seconds until the next may come."""
        now = self._timer()
        while self._times and self._times[0] <= now - self._window:
            self._times.popleft()
        if len(self._times) >= self._limit:
            return max(self._times[0] + self._window - now, _SHORTEST)
        self._times.append(now)
        return 0.0
