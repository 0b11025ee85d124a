"""A token bucket: so many a second, and one second's worth at once."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Bucket"]


class Bucket:
    """Gives ``rate`` tokens a second; ``now`` gives seconds that only grow."""

    def __init__(self, rate: float, now: Callable[[], float]) -> None:
        self._rate = rate
        self._now = now
        self._tokens = max(rate, 1.0) if rate else 0.0
        self._at = now()

    def take(self) -> bool:
        """Take a token; tell whether there was one."""
        now = self._now()
        most = max(self._rate, 1.0)
        self._tokens = min(self._tokens + (now - self._at) * self._rate, most)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
