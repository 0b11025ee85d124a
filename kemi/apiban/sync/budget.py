"""Never more than N requests in any W seconds, whatever happens to us or to the clock.

A sliding window over stored times. Each request is noted *before* it is sent, at the latest time
at which the feed may count it (its deadline), and set to the time of its answer afterwards: so a
process that dies in between, or a slow network, cannot bring six requests into one window.

Times are uptime, which nobody can set. After a reboot the only sure thing is that a request of
an earlier boot is at least as old as this boot.
"""

from __future__ import annotations

from typing import Final

from apiban.clock import Clock
from apiban.store import SentRequest, Store

__all__ = ["Budget"]

# No request, and no pause that a feed asks for, ends later than that from now.
_LONGEST: Final = 86400.0 + 300.0


class Budget:
    """The rate limit of one feed, kept in the store."""

    def __init__(self, store: Store, clock: Clock, feed: str, *, limit: int, window: float) -> None:
        self._store = store
        self._clock = clock
        self._feed = feed
        self._limit = limit
        self._window = window

    def wait(self) -> float:
        """Give the seconds until a request may be sent; 0 when it may be now."""
        return self._wait(self._store.requests(self._feed))

    def left(self) -> int:
        """Give how many requests may be sent now."""
        return max(self._limit - len(self._counted(self._store.requests(self._feed))), 0)

    def spend(self, timeout: float) -> int | None:
        """Note a request that ends within ``timeout`` seconds; give its number.

        None when it must not be sent now: another process may have spent the last one.

        Raises:
            StoreError: it could not be noted, and so must not be sent.

        """
        now, boot = self._clock.uptime(), self._clock.boot()
        if now > self._window:
            self._store.forget_requests(self._feed, boot=boot, before=now - self._window)
        return self._store.add_request(
            self._feed,
            SentRequest(boot, now + timeout),
            may=lambda requests: self._wait(requests) <= 0,
        )

    def settle(self, number: int) -> None:
        """Note that the request's answer, or its failure, is here."""
        self._store.settle_request(number, self._clock.uptime())

    def rest(self, seconds: float) -> None:
        """Hold every request back for so long, over a restart too: the feed asked for it."""
        until = self._clock.uptime() + seconds - self._window
        for _ in range(self._limit):
            self._store.add_request(self._feed, SentRequest(self._clock.boot(), until))

    def _wait(self, requests: list[SentRequest]) -> float:
        counted = self._counted(requests)
        if len(counted) < self._limit:
            return 0.0
        return counted[len(counted) - self._limit] - self._clock.uptime()

    def _counted(self, requests: list[SentRequest]) -> list[float]:
        """Give the uptimes from which the requests that count now do not any more, sorted."""
        now = self._clock.uptime()
        return sorted(at for at in map(self._frees_at, requests) if at > now)

    def _frees_at(self, request: SentRequest) -> float:
        """Give the uptime from which a request does not count any more."""
        this_boot = request.boot == self._clock.boot()
        # Where the boot has no readable id, a time in the future gives an earlier boot away.
        if this_boot and request.until <= self._clock.uptime() + _LONGEST:
            return request.until + self._window
        return self._window
