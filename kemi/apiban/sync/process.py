"""The sync process: from one tick to the next it keeps settings, store and sync together.

Nothing that fails here ends the process: a fault is said once while it lasts, and what can go on
goes on. The workers meanwhile enforce the last list that was published.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from apiban.address import Network
from apiban.clock import Clock
from apiban.errors import SettingsError, SnapshotError, StoreError
from apiban.feed.client import Feed, FeedClient
from apiban.gate.board import Board
from apiban.log import Log
from apiban.settings import FileWatch, Settings, load_settings
from apiban.settings.model import FeedSettings
from apiban.snapshot.file import load_snapshot
from apiban.snapshot.publish import Bans, LastList, Publisher, durable_path, runtime_path
from apiban.store import Store
from apiban.sync.exchange import Exchange, ThreadExchange
from apiban.sync.machine import Sync
from apiban.sync.own import own_addresses

__all__ = ["Process"]

_STORE_RETRY: Final = 1.0
_LONGEST_STORE_RETRY: Final = 60.0
_GOOD_AFTER: Final = 600.0
_SETTINGS_RETRY: Final = 2.0
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
        self._key_file: Path | None = None
        self._file_existed = False
        self._settled = True
        self._noted_mode: str | None = None
        self._to_publish = True
        self._published = True  # whether the last try reached the workers; if not, the next waits
        self._published_with: Settings | None = None
        self._allow_end: float | None = None
        self._store_pause = 0.0
        self._opened_at = 0.0
        # Uptimes from which something is due.
        self._settings_from = 0.0
        self._store_from = 0.0
        self._own_from = 0.0
        self._republish_from = 0.0
        self._trouble: dict[str, str] = {}  # what was said of each part, to say it once

    def tick(self) -> None:
        """Do what is due; raise nothing that is foreseen."""
        self._read_settings()
        settings = self._settings
        if settings is None:
            return
        self._look_at_own_addresses()
        try:
            store = self._open_store(settings)
            if store is not None:
                self._work(store, settings)
        except StoreError as error:
            self._say("store", "store-failed", error, effect="workers keep the last list")
            if self._store is not None:  # it opens, and fails at work: that costs requests
                self._store_pause = min(max(1.0, self._store_pause * 2), _LONGEST_STORE_RETRY)
                self._store_from = self._clock.uptime() + self._store_pause
            self._close_store()
        if self._store is None and "store" in self._trouble:
            self._publish_last_list(settings)

    def _work(self, store: Store, settings: Settings) -> None:
        """Sync and publish, with a store that opened."""
        if self._sync is None:
            self._sync = self._new_sync(store, settings)
        self._sync.tick()
        self._note_mode(store, settings)
        self._publish(store, settings)
        # That it opens says little: a page may still not fit.
        if store.saved or self._clock.uptime() - self._opened_at >= _GOOD_AFTER:
            self._store_pause = 0.0
            self._mended("store")

    def close(self) -> None:
        """Let go of the store and its lock."""
        self._close_store()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Settings ----------------------------------------------------------------------------------

    def _read_settings(self) -> None:
        """Read them when they were changed, and now and then while they are bad."""
        changed = [watch.changed() for watch in self._watches]
        bad = "settings" in self._trouble and self._clock.uptime() >= self._settings_from
        if any(changed):
            self._settled = False  # an editor may still be writing: look again at the next tick
            return
        if self._watches and self._settled and not bad:
            return
        self._settled = True
        if not self._watches:
            self._watches = [FileWatch(self._path)]
        self._settings_from = self._clock.uptime() + _SETTINGS_RETRY
        old = self._settings
        try:
            new = load_settings(self._path, self._environ, must_exist=self._file_existed)
        except SettingsError as error:
            event = "settings-refused" if old else "sync-idle"
            effect = (
                "the last good settings stay in force" if old else "no sync until they are good"
            )
            self._say("settings", event, error, effect=effect)
            return
        self._mended("settings")
        self._file_existed = self._path.exists()
        self._watch_key_file(new.feed.key_file)
        if new == old:
            return
        self._settings = new
        if old is None:
            self._log("settings", state="read", file=self._path)
        else:
            self._apply(old, new)
        self._to_publish = True

    def _watch_key_file(self, path: Path | None) -> None:
        if path != self._key_file:
            self._key_file = path
            self._watches[1:] = [FileWatch(path)] if path else []

    def _apply(self, old: Settings, new: Settings) -> None:
        """Take what can change while running; say what waits for a restart."""
        if new.feed != old.feed:
            self._sync = None
        if new.mode != old.mode:
            self._log("mode", mode=new.mode, was=old.mode)
        restart = "paths" if new.paths != old.paths else "nothing"
        self._settings = replace(new, paths=old.paths)
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
        self._opened_at = self._clock.uptime()
        self._noted_mode = self._store.state("mode")
        return self._store

    def _note_mode(self, store: Store, settings: Settings) -> None:
        """Keep the mode in the journal."""
        if self._noted_mode != str(settings.mode):
            store.set_state("mode", str(settings.mode), now=self._clock.now())
            self._noted_mode = str(settings.mode)

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
        try:
            own = self._find_own()
        except OSError as error:
            self._say("own", "fault", error, effect="the last known own addresses stay exempt")
            return
        self._mended("own")
        self._own_from = self._clock.uptime() + _OWN_EVERY
        if own != self._own:
            self._own = own
            self._to_publish = True

    def _publish(self, store: Store, settings: Settings) -> None:
        """Publish when there is something new, or when what was published is not there any more."""
        now = self._clock.uptime()
        if self._allow_end is not None and self._clock.now() >= self._allow_end:
            self._to_publish = True
        if not self._publisher.in_place:
            self._to_publish = True
        if self._to_publish and (self._published or now >= self._republish_from):
            self._allow_end = store.next_allow_end(self._clock.now())
            self._publish_from(store, settings)
        elif not self._publisher.on_disk and now >= self._republish_from:
            self._republish_from = now + _REPUBLISH_EVERY
            self._publisher.write_files(settings)

    def _publish_last_list(self, settings: Settings) -> None:
        """Without a store, new settings still take effect: the emergency switch must work."""
        if settings == self._published_with:
            return
        if not self._published and self._clock.uptime() < self._republish_from:
            return
        for path in (
            runtime_path(settings.paths.runtime, self._board.generation),
            durable_path(settings.paths.state),
        ):
            with contextlib.suppress(SnapshotError):
                self._publish_from(LastList(load_snapshot(path)), settings)
                return
        self._published = False
        self._republish_from = self._clock.uptime() + _REPUBLISH_EVERY

    def _publish_from(self, source: Bans, settings: Settings) -> None:
        self._published = self._publisher.publish(
            source, settings, self._own, now=self._clock.now()
        )
        self._to_publish = not self._published
        self._republish_from = self._clock.uptime() + _REPUBLISH_EVERY
        if self._published:
            self._published_with = settings

    # Saying it once ----------------------------------------------------------------------------

    def _say(self, part: str, event: str, error: object, *, effect: str) -> None:
        text = str(error)
        if self._trouble.get(part) != text:
            self._trouble[part] = text
            self._log(event, reason=text, effect=effect)

    def _mended(self, part: str) -> None:
        if self._trouble.pop(part, None) is not None and part in {"store", "settings"}:
            self._log(part, state="good again")
