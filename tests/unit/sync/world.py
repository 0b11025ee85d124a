"""One syncer with everything around it under the test's control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from apiban.address import Network
from apiban.settings import Secret, load_settings
from apiban.settings.model import FeedSettings
from apiban.store import FEED_SOURCE, Store
from apiban.sync.machine import Sync

from tests.support.clock import ManualClock
from tests.support.exchange import ManualExchange
from tests.support.feeds import ListFeed
from tests.support.log import MemoryLog

DAY = 86400.0


def feed_settings(**changes: Any) -> FeedSettings:
    """Give the default feed settings with a key, and these changes."""
    defaults = load_settings(Path("/no-such-folder/apiban.toml"), {}).feed
    return replace(defaults, **{"key": Secret("k"), **changes})


def addresses(count: int, first: int = 0) -> list[str]:
    """Give addresses that no rule refuses."""
    return [f"198.51.{n // 256}.{n % 256}" for n in range(first, first + count)]


class World:
    """A store, a feed, a clock and a sync, which ``restart`` makes anew."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.path = folder / "store.db"
        self.settings = feed_settings(**changes)
        self.clock = ManualClock()
        self.feed = ListFeed()
        self.exchange = ManualExchange()
        self.log = MemoryLog()
        self.store = Store(self.path)
        self.changes: list[int] = []  # the number of entries at each call of ``changed``
        self.jitter: Callable[[], float] = lambda: 0.0
        self.sync = self._new_sync()

    def _new_sync(self) -> Sync:
        return Sync(
            settings=self.settings,
            feed=self.feed,
            store=self.store,
            clock=self.clock,
            exchange=self.exchange,
            changed=lambda: self.changes.append(self.store.count(FEED_SOURCE)),
            log=self.log,
            jitter=self.jitter,
        )

    def restart(self, **changes: Any) -> None:
        """Die, and begin again over the same store."""
        self.store.close()
        self.store = Store(self.path)
        self.settings = replace(self.settings, **changes)
        self.exchange = ManualExchange()
        self.sync = self._new_sync()

    def run(self, seconds: float, step: float = 1.0) -> None:
        """Tick for a while."""
        for _ in range(int(seconds / step)):
            self.sync.tick()
            self.clock.tick(step)

    def until(self, true: Callable[[], bool], within: float = 3600.0, step: float = 1.0) -> float:
        """Tick until something is true; give how long it took."""
        taken = 0.0
        while not true():
            assert taken < within, f"not within {within} s: {self.log.names()}"
            self.run(step, step)
            taken += step
        return taken

    def load(self, *texts: str) -> None:
        """List these and bring the first pass to its end."""
        self.feed.add(*texts)
        self.until(lambda: self.sync.state.pass_ended is not None)

    def asked(self, after: int = 0) -> list[str]:
        """Give the cursors that were asked for, without the first ``after``."""
        return self.feed.cursors[after:]

    def listed(self) -> set[str]:
        """Give what the store bans."""
        return {
            str(Network(family, first, last))
            for family in (4, 6)
            for first, last, *_ in self.store.bans(family, grace_source="", grace=0)
        }

    def said(self, event: str) -> int:
        """Count the lines of an event."""
        return len(self.log.fields(event))
