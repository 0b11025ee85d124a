"""The mirror: the list of an upstream APIBAN, merged into ours.

A node's own sync does the work: the same state machine, rate limit, sanity checks and holding of
passes that would remove too much, with a store of its own in ``mirror.state``. What it brings is
carried over as the claims of the source ``mirror``. One mirror a state folder, by lock: one key,
one budget.
"""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import select

from apiban.address import Family, Network
from apiban.clock import Clock, SystemClock
from apiban.errors import StoreError
from apiban.feed.client import Feed, FeedClient
from apiban.feed.server.claims import MIRROR, Claims, Wanted
from apiban.feed.server.database import Database
from apiban.feed.server.database.schema import claim
from apiban.feed.server.notes import write_note
from apiban.feed.server.service import Service
from apiban.settings.model import FeedSettings
from apiban.store import FEED_SOURCE, FeedState, Store
from apiban.sync.exchange import Exchange, ThreadExchange
from apiban.sync.machine import Sync

__all__ = ["NOTE", "TICK_EVERY", "Mirror"]

NOTE: Final = "mirror"
# How often ``tick`` is due.
TICK_EVERY: Final = 0.2
_AT_ONCE: Final = 1000
_COMPARE_EVERY: Final = 3600.0
_NOTE_EVERY: Final = 30.0
_FAMILIES: Final[tuple[Family, ...]] = (4, 6)


_Entry = tuple[Network, float, float]  # when it was listed, and when its ban ends


@dataclass(frozen=True, slots=True)
class _Page:
    """A page as the upstream gave it; ``live`` ones have new IDs, others were only walked over."""

    entries: Sequence[_Entry]
    live: bool


class _NotingStore(Store):
    """A store that remembers the pages that it took, so that just these are carried over."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.pages: list[_Page] = []
        self._live_cursor: str | None = None
        self.removed = True  # what a process before this one removed is not known

    def record_page(
        self,
        source: str,
        networks: Sequence[Network],
        *,
        listed: float,
        expires: float,
        state: FeedState,
    ) -> int:
        """Store a page, and remember it."""
        new = super().record_page(source, networks, listed=listed, expires=expires, state=state)
        # The live walk moves its cursor: what it brings has an ID that is new upstream.
        live = state.cursor is not None and state.cursor != self._live_cursor
        self._live_cursor = state.cursor
        self.pages.append(_Page([(one, listed, expires) for one in networks], live=live))
        return new

    def feed(self, name: str, identity: str) -> FeedState:
        """Give where the sync stands, and remember the live walk's cursor."""
        state = super().feed(name, identity)
        self._live_cursor = state.cursor
        return state

    def save_feed(self, name: str, state: FeedState) -> None:
        """Save where the sync stands: the end of a pass moves the live walk's cursor."""
        super().save_feed(name, state)
        self._live_cursor = state.cursor

    def remove_unseen(
        self, source: str, *, state: FeedState, now: float, pass_number: int | None = None
    ) -> int:
        """End a pass, and remember that something went."""
        self.removed = True
        self._live_cursor = state.cursor  # the end of a pass moves it too
        return super().remove_unseen(source, state=state, now=now, pass_number=pass_number)

    def remove_expired(self, source: str, *, until: float, now: float) -> int:
        """Remove what expired, and remember that something went."""
        self.removed = True
        return super().remove_expired(source, until=until, now=now)


class Mirror:
    """Mirrors the upstream of one service; ``tick()``, a few times a second, drives it."""

    def __init__(
        self,
        service: Service,
        *,
        clock: Clock | None = None,
        make_feed: Callable[[FeedSettings], Feed] = FeedClient,
        exchange: Exchange | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if service.settings.mirror is None:
            raise ValueError("no mirror is set")
        self._settings: FeedSettings = service.settings.mirror
        self._folder = service.settings.mirror_state
        self._database: Database = service.database
        self._claims: Claims = service.claims
        self._log = service.log
        self._clock = clock or SystemClock()
        self._make_feed = make_feed
        self._exchange = exchange or ThreadExchange()
        self._jitter = jitter
        self._lock: int | None = None
        self._store: _NotingStore | None = None
        self._sync: Sync | None = None
        self._busy_said = False
        # Uptimes from which something is due.
        self._compare_from = 0.0
        self._note_from = 0.0

    def tick(self) -> None:
        """Sync a step, and carry over what is new.

        Raises:
            StoreError: what was not carried over is, at a later tick.

        """
        if not self._take_lock():
            return
        if self._store is None or self._sync is None:
            self._store = _NotingStore(self._folder / "mirror.db")
            self._sync = self._new_sync(self._store)
        self._sync.tick()
        self._carry_over(self._store, is_whole=self._sync.state.pass_ended is not None)
        if self._clock.uptime() >= self._note_from:
            self._note_from = self._clock.uptime() + _NOTE_EVERY
            self._write_note(self._store, self._sync)

    def close(self) -> None:
        """Let go of the store and its lock."""
        if self._store is not None:
            self._store.close()
            self._store = self._sync = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Inside ------------------------------------------------------------------------------------

    def _take_lock(self) -> bool:
        if self._lock is not None:
            return True
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            handle = os.open(
                self._folder / "mirror.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640
            )
        except OSError as error:
            raise StoreError(f"mirror.state = {self._folder}: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            if not self._busy_said:
                self._log("sync-busy", reason="another process mirrors here", effect="waiting")
                self._busy_said = True
            return False
        self._lock = handle
        return True

    def _new_sync(self, store: Store) -> Sync:
        return Sync(
            settings=self._settings,
            feed=self._make_feed(self._settings),
            store=store,
            clock=self._clock,
            exchange=self._exchange,
            changed=self._changed,
            log=self._log,
            jitter=self._jitter,
        )

    def _changed(self) -> None:
        self._note_from = 0.0

    def _carry_over(self, store: _NotingStore, *, is_whole: bool) -> None:
        if store.removed or self._clock.uptime() >= self._compare_from:
            self._compare(store, is_whole=is_whole)
            store.removed = False
            self._compare_from = self._clock.uptime() + _COMPARE_EVERY
        while store.pages:
            page = store.pages[0]
            self._claim(page.entries, live=page.live)
            del store.pages[0]

    def _compare(self, store: Store, *, is_whole: bool) -> None:
        """Make our claims what the store holds: after a start, a removal, and now and then.

        A store that has not seen the whole list yet (its folder was lost) takes nothing away.
        """
        with self._database.read() as connection:
            query = select(claim.c.address, claim.c.dataset).where(claim.c.source == MIRROR)
            ours = {(row.address, row.dataset) for row in connection.execute(query)}
        missing: list[_Entry] = []
        for network, expires in _entries(store):
            key = (str(network), self._dataset)
            if key in ours:
                ours.discard(key)
            else:
                missing.append((network, expires - self._settings.ban_for, expires))
        for at in range(0, len(missing), _AT_ONCE):
            self._claim(missing[at : at + _AT_ONCE], live=False)
        gone = sorted(ours) if is_whole else []
        for at in range(0, len(gone), _AT_ONCE):
            with self._database.write() as connection:
                self._claims.withdraw(connection, MIRROR, gone[at : at + _AT_ONCE])

    def _claim(self, entries: Sequence[_Entry], *, live: bool) -> None:
        """Claim what the upstream lists.

        A new ID upstream counts as a sighting there, unless our own ID is young. What a pass
        merely walks over is none: it is claimed when we have not had it, and renews nothing. So
        two feeds that mirror each other do not keep an address alive for ever.
        """
        # An upstream that is down for long: its entries stay for ``stale_max``, as in a node.
        stale = self._settings.stale_max
        with self._database.write() as connection:
            keys = [(str(network), self._dataset) for network, _, _ in entries]
            leave = self._claims.listed_lately if live else self._claims.had
            left = leave(connection, keys)
            entries = [one for one in entries if (str(one[0]), self._dataset) not in left]
            self._claims.make(
                connection,
                MIRROR,
                [
                    Wanted(network, listed, expires + stale, "listed upstream", self._dataset)
                    for network, listed, expires in entries
                ],
            )

    @property
    def _dataset(self) -> str:
        return "http" if self._settings.set == "http" and self._settings.version == 2 else "sip"

    def _write_note(self, store: Store, sync: Sync) -> None:
        values = {
            "state": sync.health,
            "entries": store.count(FEED_SOURCE),
            "complete_at": sync.state.complete_at,
            "at": self._clock.now(),
        }
        with self._database.write(the_list=False) as connection:
            write_note(connection, NOTE, values, now=self._clock.now())


def _entries(store: Store) -> Iterator[tuple[Network, float]]:
    for family in _FAMILIES:
        for first, last, expires, _ in store.bans(family, grace_source="", grace=0.0):
            yield Network(family, first, last), expires
