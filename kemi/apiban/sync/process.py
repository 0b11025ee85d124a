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
from apiban.settings import FileWatch, Mode, Settings, load_settings
from apiban.settings.model import FeedSettings
from apiban.snapshot.file import load_snapshot
from apiban.snapshot.publish import Bans, LastList, Publisher, durable_path, runtime_path
from apiban.store import (
    DETECTOR,
    FEED_SOURCE,
    LOCAL,
    FeedState,
    ModeOverride,
    Store,
    overriding_mode,
)
from apiban.store.file import make_shared
from apiban.sync.drift import Drift
from apiban.sync.exchange import Exchange, ThreadExchange
from apiban.sync.machine import Sync
from apiban.sync.own import own_addresses
from apiban.sync.report import SyncReport, kept_path, report_path
from apiban.sync.reporter import Reporter
from apiban.sync.trusted import TrustedPeers
from apiban.verdict.exempt import exemptions

__all__ = ["Process"]

_STORE_RETRY: Final = 1.0
_LONGEST_STORE_RETRY: Final = 60.0
_GOOD_AFTER: Final = 600.0
_SETTINGS_RETRY: Final = 2.0
_OWN_EVERY: Final = 5.0
_REPUBLISH_EVERY: Final = 10.0
_TIDY_EVERY: Final = 60.0
_TASK_LASTS: Final = 300.0


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
        self._trusted = TrustedPeers(clock=clock, log=log)
        self._drift = Drift(board=board, clock=clock, log=log)
        self._reporter = Reporter(clock)
        self._watches: list[FileWatch] = []
        self._settings: Settings | None = None
        self._store: Store | None = None
        self._store_file = 0
        self._sync: Sync | None = None
        self._lock: int | None = None
        self._own: tuple[Network, ...] = ()
        self._key_file: Path | None = None
        self._file_existed = False
        self._settled = True
        self._noted_mode: str | None = None  # the settings' mode as it was applied last
        self._stored_mode: str | None = None  # what the store says of that
        self._over: str | None = None  # the settings' mode that the operator's was set over
        self._override: ModeOverride | None = None
        self._mode: Mode | None = None  # what was last published
        self._fresh = True  # the store was just opened: all of it may be new
        self._tidied = 0  # the journal's number of what ended and was tidied away
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
        self._tidy_from = 0.0
        self._trouble: dict[str, str] = {}  # what was said of each part, to say it once

    def tick(self) -> None:
        """Do what is due; raise nothing that is foreseen."""
        self._board.beat(self._clock.uptime())
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
            self._publish_last_list(self._in_force(settings))
        with contextlib.suppress(StoreError):  # it was said above, or will be at the next tick
            self._write_report(settings)

    def _work(self, store: Store, settings: Settings) -> None:
        """Sync and publish, with a store that opened."""
        if self._sync is None:
            self._sync = self._new_sync(store, settings)
        self._look_at_store(store, self._sync)
        if self._trusted.tick(store, settings):
            self._to_publish = True
        self._sync.tick()
        self._note_mode(store, settings)
        self._publish(store, settings)
        self._drift.look(store, self._sync, self._in_force(settings), self._own)
        self._tidy(store)
        # That it opens says little: a page may still not fit.
        if store.saved or self._clock.uptime() - self._opened_at >= _GOOD_AFTER:
            self._store_pause = 0.0
            self._mended("store")

    @property
    def settings(self) -> Settings | None:
        """The settings that it works by; None until some are good."""
        return self._settings

    @property
    def has_lock(self) -> bool:
        """Whether it is the one that syncs this store."""
        return self._lock is not None

    @property
    def has_store(self) -> bool:
        """Whether the store is open, and bans can be written."""
        return self._store is not None

    def ban(self, network: Network, *, reason: str, seconds: float) -> str:
        """Ban a source that the detector in Kamailio caught; give why not, "" when it is banned.

        Raises:
            StoreError

        """
        store, settings = self._store, self._settings
        if store is None or settings is None:
            return "there is no store"
        now = self._clock.now()
        saved = exemptions(network, settings=settings, own=self._own, store=store, now=now)
        if saved:
            return str(saved[0])
        # Of two rules that one source broke, the longer ban counts.
        held = [one.expires for one in store.find(network) if one.source == DETECTOR]
        expires = max([now + seconds, *held])
        store.ban((network,), source=DETECTOR, reason=reason, expires=expires, now=now)
        self._to_publish = True
        return ""

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
            # What the node began with, also if the store can be read and not written.
            self._override = overriding_mode(
                new.paths.state / "store.db", self._clock.now(), new.mode
            )
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
            self._override = None  # whether or not the store can be told
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
        with contextlib.suppress(OSError):
            self._store_file = (state / "store.db").stat().st_ino
        self._opened_at = self._clock.uptime()
        self._noted_mode = self._stored_mode = self._store.state("mode")
        self._over = None
        self._fresh, self._tidied = True, 0
        return self._store

    def _look_at_store(self, store: Store, sync: Sync) -> None:
        """Take what the command line changed and asked for."""
        if not (store.changed_outside() or self._fresh):
            return
        # What is in no journal, such as a request that apiban check sent, changes no list.
        if self._fresh or store.position() != self._known:
            self._to_publish = True
        self._fresh = False
        stored = store.state("mode")
        if stored != self._stored_mode:
            self._stored_mode = self._over = stored
        now = self._clock.now()
        tasks = store.open_tasks()
        for task in tasks:
            if now - task.at >= _TASK_LASTS:
                continue  # asked when no sync ran: the operator meant what was the case then
            if task.name == "accept-hold":
                sync.accept_hold()
            else:
                sync.ask_now(full=task.name == "full-pass")
        if tasks:
            store.take_tasks([task.number for task in tasks], now=now)

    def _note_mode(self, store: Store, settings: Settings) -> None:
        """Keep the settings' mode in the journal; a change of it ends the operator's mode.

        So the last word is in force, whether it was said in the settings or at the command line.
        What the command line takes for the settings' mode may be another one than ours: it sees a
        change before us, and may have another environment.
        """
        now, mode = self._clock.now(), str(settings.mode)
        if self._noted_mode != mode:
            later = self._noted_mode is not None and self._over != mode
            if later and store.mode(now) is not None:
                store.set_mode(None, now=now)
            self._noted_mode, self._over = mode, None
        if self._stored_mode != mode:
            store.set_state("mode", mode, now=now)
            self._stored_mode = mode
        override = store.mode(now)
        self._to_publish = self._to_publish or override != self._override
        self._override = override

    def _in_force(self, settings: Settings) -> Settings:
        """Give the settings in the mode that is in force."""
        override = self._override
        if override is None:
            return settings
        if override.expires is not None and self._clock.now() >= override.expires:
            return settings
        return replace(settings, mode=override.mode)

    def _tidy(self, store: Store) -> None:
        """Remove what ended: the list is the same without it, and knows that."""
        now = self._clock.uptime()
        if now < self._tidy_from:
            return
        self._tidy_from = now + _TIDY_EVERY
        self._note_tidied(store, store.remove_ended(feed=FEED_SOURCE, now=self._clock.now()))
        self._note_tidied(store, store.remove_ended_allowed(self._clock.now()))

    def _note_tidied(self, store: Store, gone: int) -> None:
        if gone:
            self._reporter.recount()
        if gone and store.noted - gone == self._known:  # nobody wrote in between
            self._tidied = store.noted

    @property
    def _known(self) -> int:
        """Up to which number of the journal the published list knows the store."""
        return max(self._board.position, self._tidied)

    def _take_lock(self, path: Path) -> bool:
        """Be the one syncer of this store, or say who is."""
        if self._lock is not None:
            return True
        make_shared(path)
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
            self._store, self._store_file = None, 0
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
            # What the list is said to know of the store is then true of its mode as well.
            with store.steady():
                self._allow_end = store.next_allow_end(self._clock.now())
                self._override = store.mode(self._clock.now())
                self._publish_from(store, self._in_force(settings))
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
            if self._mode is not None and settings.mode is not self._mode:
                self._log("mode", mode=settings.mode, was=self._mode)
            self._mode = settings.mode

    # Telling of it -----------------------------------------------------------------------------

    def _write_report(self, settings: Settings) -> None:
        """Say where the sync stands, for the command line."""
        if not self._reporter.is_due(self._board.generation):
            return
        runtime = settings.paths.runtime
        path = report_path(runtime)
        if self._lock is not None or not self._reporter.other_reports(path):
            self._reporter.keep(kept_path(runtime), settings)
            self._reporter.write(path, self._new_report(settings))

    def _new_report(self, settings: Settings) -> SyncReport:
        sync, feed, now = self._sync, settings.feed, self._clock.now()
        state = FeedState(feed.identity) if sync is None else sync.state
        next_in = None if sync is None else sync.next_request_in()
        entries = self._reporter.entries(self._store, self._board.generation)
        in_force = self._in_force(settings)
        return SyncReport(
            pid=os.getpid(),
            at=now,
            feed="unknown" if sync is None else sync.health,
            error="" if sync is None else sync.error,
            # Whole seconds, so that the clocks' small steps do not make it another report.
            next_request_at=None if next_in is None else float(round(now + next_in)),
            budget_left=0 if sync is None else sync.budget_left,
            budget=feed.requests,
            window=feed.window,
            entries=entries.get(FEED_SOURCE, 0),
            complete_at=state.complete_at,
            pass_number=state.pass_number,
            pass_started=state.pass_started,
            pass_seen=0 if sync is None else sync.pass_seen,
            pass_ended=state.pass_ended,
            held=state.held,
            held_since=state.held_since,
            held_back="" if sync is None else sync.held_back,
            waiting=0 if sync is None else sync.waiting,
            store_error=self._trouble.get("store", self._trouble.get("lock", "")),
            settings_error=self._trouble.get("settings", ""),
            position=self._known,
            local=entries.get(LOCAL, 0),
            detector=entries.get(DETECTOR, 0),
            override="" if in_force is settings else str(in_force.mode),
            drift=" ".join(self._drift.found),
            store=self._store_file,
        )

    # Saying it once ----------------------------------------------------------------------------

    def _say(self, part: str, event: str, error: object, *, effect: str) -> None:
        text = str(error)
        if self._trouble.get(part) != text:
            self._trouble[part] = text
            self._log(event, reason=text, effect=effect)

    def _mended(self, part: str) -> None:
        if self._trouble.pop(part, None) is not None and part in {"store", "settings"}:
            self._log(part, state="good again")
