"""The sync process: from one tick to the next it keeps settings, store and sync together.

Nothing that fails here ends the process: a fault is said once while it lasts, and what can go on
goes on. The workers meanwhile enforce the last list that was published.
"""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from apiban.address import Network
from apiban.clock import Clock
from apiban.errors import SettingsError, StoreError
from apiban.feed.client import Feed, FeedClient
from apiban.gate.board import Board
from apiban.log import Log
from apiban.settings import FileWatch, Settings, load_settings
from apiban.settings.model import FeedSettings
from apiban.snapshot.publish import Publisher
from apiban.store import Store
from apiban.sync.exchange import Exchange, ThreadExchange
from apiban.sync.machine import Sync
from apiban.sync.own import own_addresses

__all__ = ["Process"]

_STORE_RETRY: Final = 1.0
_OWN_EVERY: Final = 5.0
_REPUBLISH_EVERY: Final = 10.0


class Process:
    """One syncer of one store. ``tick()`` is all that drives it."""

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        *,
        path: Path,
        environ: Mapping[str, str],
        board: Board,
        clock: Clock,
        log: Log,
        make_feed: Callable[[FeedSettings], Feed] = FeedClient,
        make_exchange: Callable[[], Exchange] = ThreadExchange,
        own: Callable[[], tuple[Network, ...]] = own_addresses,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._path = path
        self._environ = environ
        self._board = board
        self._clock = clock
        self._log = log
        self._make_feed = make_feed
        self._make_exchange = make_exchange
        self._find_own = own
        self._jitter = jitter
        self._publisher = Publisher(board, log)
        self._watches: list[FileWatch] = []
        self._settings: Settings | None = None
        self._store: Store | None = None
        self._sync: Sync | None = None
        self._lock: int | None = None
        self._own: tuple[Network, ...] = ()
        self._to_publish = True
        # Uptimes from which something is due.
        self._store_from = 0.0
        self._own_from = 0.0
        self._republish_from = 0.0
        self._trouble: dict[str, str] = {}  # what was said of each part, to say it once

    def tick(self) -> None:
        """Do what is due; raise nothing that is foreseen."""
        self._read_settings()
        if self._settings is None:
            return
        try:
            store = self._open_store(self._settings)
            if store is None:
                return
            self._look_at_own_addresses()
            if self._sync is None:
                self._sync = self._new_sync(store, self._settings)
            self._sync.tick()
            self._publish(store, self._settings)
            self._mended("store")
        except StoreError as error:
            self._say("store", "store-failed", error, effect="workers keep the last list")
            self._close_store()

    def close(self) -> None:
        """Let go of the store and its lock."""
        self._close_store()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Settings ----------------------------------------------------------------------------------

    def _read_settings(self) -> None:
        changed = [watch.changed() for watch in self._watches]
        if self._watches and not any(changed):
            return
        old = self._settings
        if not self._watches:
            self._watches = [FileWatch(self._path)]
        try:
            new = load_settings(self._path, self._environ)
        except SettingsError as error:
            event = "settings-refused" if old else "sync-idle"
            effect = (
                "the last good settings stay in force" if old else "no sync until they are good"
            )
            self._say("settings", event, error, effect=effect)
            return
        self._mended("settings")
        key_file = new.feed.key_file
        self._watches = self._watches[:1] + ([FileWatch(key_file)] if key_file else [])
        if new == old:
            return
        self._settings = new
        if old is None:
            self._log("settings", state="read", file=self._path)
        else:
            self._apply(old, new)
        self._to_publish = True

    def _apply(self, old: Settings, new: Settings) -> None:
        """Take what can change while running; say what waits for a restart."""
        if new.feed != old.feed:
            self._sync = None
        if new.mode != old.mode:
            self._log("mode", mode=new.mode, was=old.mode)
        restart = "paths" if new.paths != old.paths else "nothing"
        if new.paths != old.paths:
            self._settings = Settings(
                **{name: getattr(new, name) for name in Settings.__slots__ if name != "paths"},
                paths=old.paths,
            )
        self._board.announce_settings()
        self._log("settings", state="changed", file=self._path, needs_restart=restart)

    # The store ---------------------------------------------------------------------------------

    def _open_store(self, settings: Settings) -> Store | None:
        if self._store is not None:
            return self._store
        if self._clock.uptime() < self._store_from:
            return None
        self._store_from = self._clock.uptime() + _STORE_RETRY
        state = settings.paths.state
        if not self._take_lock(state / "sync.lock"):
            return None
        self._store = Store(state / "store.db")
        if self._store.state("mode") != str(settings.mode):
            self._store.set_state("mode", str(settings.mode), now=self._clock.now())
        return self._store

    def _take_lock(self, path: Path) -> bool:
        """Be the one syncer of this store, or say who is."""
        if self._lock is not None:
            return True
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
        except OSError as error:
            raise StoreError(
                f"{path}: {error.strerror}; the folder must exist and be writable for the user "
                "that Kamailio runs as"
            ) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            self._say("lock", "sync-busy", f"another process syncs {path.parent}", effect="waiting")
            return False
        self._lock = handle
        self._mended("lock")
        return True

    def _close_store(self) -> None:
        self._sync = None
        if self._store is not None:
            self._store.close()
            self._store = None
        self._to_publish = True

    # Syncing and publishing --------------------------------------------------------------------

    def _new_sync(self, store: Store, settings: Settings) -> Sync:
        return Sync(
            settings=settings.feed,
            feed=self._make_feed(settings.feed),
            store=store,
            clock=self._clock,
            exchange=self._make_exchange(),
            changed=self._changed,
            log=self._log,
            jitter=self._jitter,
        )

    def _changed(self) -> None:
        self._to_publish = True

    def _look_at_own_addresses(self) -> None:
        if self._clock.uptime() < self._own_from:
            return
        self._own_from = self._clock.uptime() + _OWN_EVERY
        own = self._find_own()
        if own != self._own:
            self._own = own
            self._to_publish = True

    def _publish(self, store: Store, settings: Settings) -> None:
        now = self._clock.uptime()
        if not self._publisher.in_place:
            self._to_publish = True
        if not self._publisher.durable and now >= self._republish_from:
            self._to_publish = True
        if not self._to_publish or (now < self._republish_from and not self._done):
            return
        self._done = self._publisher.publish(store, settings, self._own, now=self._clock.now())
        self._to_publish = not self._done
        self._republish_from = now + _REPUBLISH_EVERY

    _done = True  # the last publication reached the workers; if not, the next try waits

    # Saying it once ----------------------------------------------------------------------------

    def _say(self, part: str, event: str, error: object, *, effect: str) -> None:
        text = str(error)
        if self._trouble.get(part) != text:
            self._trouble[part] = text
            self._log(event, reason=text, effect=effect)

    def _mended(self, part: str) -> None:
        if self._trouble.pop(part, None) is not None and part in {"store", "settings"}:
            self._log(part, state="good again")
