"""The list that the firewall client goes by, and whom nobody may drop.

While somebody syncs it is the newest that was published, in its mode. Where nobody does, the list
is compiled from the store itself, so that a ban or an unban of the operator's needs no sync
process. What cannot be read leaves the last good list in force.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from apiban.address import Network
from apiban.clock import Clock
from apiban.errors import StoreError
from apiban.firewall.published import Published, published_position
from apiban.firewall.trouble import Troubles
from apiban.settings import Mode, Settings
from apiban.snapshot import Snapshot
from apiban.snapshot.publish import encode_list
from apiban.store import Store, overriding_mode

__all__ = ["Listed", "Lists"]

# A sync process that is started anew is no reason to compile the list here.
_GONE_AFTER: Final = 3.0
_RETRY: Final = 5.0
_ONCE: Final = 1.0
_HASTE: Final = 5.0
# A sync process that is back publishes within this time; else the list is compiled here again.
_PATIENCE: Final = 30.0
_OWN_EVERY: Final = 5.0


@dataclass(frozen=True, slots=True)
class Listed:
    """A list in its mode, and whom nobody may drop, cut out of it or not.

    ``generation`` is 0 for one that was compiled here, ``position`` the number of the store's
    journal up to which it knows the store, 0 when that is not known.
    """

    snapshot: Snapshot
    mode: Mode
    generation: int
    position: int
    allowed: tuple[Network, ...]


class Lists:
    """Follows the list. ``somebody_syncs`` tells whether a process has the lock of a state folder.

    ``look`` costs a few stats while nothing changes.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        troubles: Troubles,
        own: Callable[[], tuple[Network, ...]],
        somebody_syncs: Callable[[Path], bool],
    ) -> None:
        self._clock = clock
        self._troubles = troubles
        self._find_own = own
        self._somebody_syncs = somebody_syncs
        self._listed: Listed | None = None
        self._settings: Settings | None = None
        self._published = Published(clock=clock, troubles=troubles)
        self._store: Store | None = None
        self._store_file = 0
        self._own: tuple[Network, ...] = ()
        self._store_allows: tuple[Network, ...] = ()
        self._compiled_of: tuple[object, ...] | None = None  # what the list here was made of
        self._position = 0
        self._allow_end: float | None = None
        self._mode: Mode | None = None
        self._known: int | None = None
        # Uptimes: when somebody was seen to sync, and since when without a pause.
        self._synced_at = float("-inf")
        self._synced_since: float | None = None
        # Uptimes from which something is due.
        self._own_from = 0.0
        self._store_from = 0.0
        self._once_from = 0.0
        self._haste_until = 0.0

    def close(self) -> None:
        """Let go of the store."""
        if self._store is not None:
            self._store.close()
            self._store, self._compiled_of = None, None

    @property
    def listed(self) -> Listed | None:
        """The list as ``look`` found it; None while there was none that could be read."""
        return self._listed

    def look(self, settings: Settings) -> None:
        """Look for what changed."""
        if settings != self._settings:
            if self._settings is None or settings.paths != self._settings.paths:
                self._begin(settings)
            self._settings = settings
        self._look_at_own()
        nobody = self._nobody_syncs(settings)
        try:
            store = self._opened(settings)
            if store is not None:
                self._look_at_store(store)
            self._once_a_second(store, settings)
            if store is not None and (nobody or self._lags()):
                self._compile(store, settings)
            else:
                self._compiled_of = None
        except StoreError as error:
            made_here = self._listed is not None and not self._listed.generation
            effect = "the last good list stays" if made_here else "the published list is used"
            self._troubles.tell("store", error, effect=effect)
            self._store_from = self._clock.uptime() + _RETRY
            self.close()
        if self._compiled_of is None:
            self._follow(settings, nobody=nobody)
        else:
            self._troubles.over("list")  # none of the files is needed
        allowed = (*settings.exempt, *self._own, *self._store_allows)
        if self._listed is not None and self._listed.allowed != allowed:
            self._listed = replace(self._listed, allowed=allowed)

    def _begin(self, settings: Settings) -> None:
        """Begin with other folders."""
        self.close()
        self._published.begin(settings.paths)
        self._listed = None
        self._store_from = self._once_from = 0.0

    def _nobody_syncs(self, settings: Settings) -> bool:
        now = self._clock.uptime()
        if self._somebody_syncs(settings.paths.state):
            self._synced_at = now
            if self._synced_since is None:
                self._synced_since = now
        nobody = now - self._synced_at >= _GONE_AFTER
        if nobody:
            self._synced_since = None
        return nobody

    def _once_a_second(self, store: Store | None, settings: Settings) -> None:
        """Take what is not worth a look each tick: the mode, and how far the list knows the store.

        The latter is read before the list is: what was published then is in what is there.
        """
        now = self._clock.uptime()
        # Somebody may wait for what was just written, until it is in the list.
        hastes = now < self._haste_until and (self._known or 0) < self._position
        if now < self._once_from and not hastes:
            return
        self._once_from = now + _ONCE
        generation = self._listed.generation if self._listed is not None else 0
        self._known = published_position(settings.paths.runtime, generation)
        override = overriding_mode(
            settings.paths.state / "store.db", self._clock.now(), settings.mode
        )
        self._mode = settings.mode if override is None or store is None else override.mode

    def _look_at_own(self) -> None:
        now = self._clock.uptime()
        if now < self._own_from:
            return
        self._own_from = now + _OWN_EVERY
        try:
            self._own = self._find_own()
        except OSError as error:
            self._troubles.tell("own", error, effect="the last known own addresses stay exempt")
        else:
            self._troubles.over("own")

    # From the store ----------------------------------------------------------------------------

    def _opened(self, settings: Settings) -> Store | None:
        """Give the store; None when there is none, or none that can be used."""
        path = settings.paths.state / "store.db"
        if self._store is not None:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == self._store_file:
                    return self._store
            self.close()  # it was moved away, or is another one
        if self._clock.uptime() < self._store_from:
            return None
        try:
            if not path.exists():
                self._troubles.over("store")
                self._store_allows = ()
                return None
            store = Store(path)
            self._store_file = path.stat().st_ino
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from None
        self._store, self._position, self._allow_end = store, 0, None
        return store

    def _look_at_store(self, store: Store) -> None:
        """Take the allow list, when it may be another one."""
        now = self._clock.now()
        ended = self._allow_end is not None and now >= self._allow_end
        if self._position and not ended and not store.changed_outside():
            return
        with store.steady():
            # Never 0 for a store that was looked at: an empty journal has no number.
            self._position = store.position() or -1
            self._allow_end = store.next_allow_end(now)
            self._store_allows = tuple(store.allowed(now))
        self._once_from = 0.0  # it may be the mode
        self._haste_until = self._clock.uptime() + _HASTE
        self._troubles.over("store")

    def _compile(self, store: Store, settings: Settings) -> None:
        """Make the list of what the store says, if that is not the last one yet."""
        mode = self._mode or settings.mode
        made_of = (self._position, self._store_allows, self._own, mode, settings)
        if made_of == self._compiled_of:
            return
        with store.steady():
            position = store.position()
            content = encode_list(
                store,
                replace(settings, mode=mode),
                self._own,
                generation=0,
                now=self._clock.now(),
            )
        self._listed = Listed(Snapshot(memoryview(content)), mode, 0, position, ())
        self._compiled_of = made_of

    # What was published ------------------------------------------------------------------------

    def _follow(self, settings: Settings, *, nobody: bool) -> None:
        """Take the newest published list; where nobody syncs, the settings' mode goes with it."""
        self._published.look()
        old = self._listed
        if old is not None and self._is_ahead(old):
            self._published.forget()
            return
        newest = self._published.newest(old.generation if old is not None else None)
        if newest is not None:
            self._listed = Listed(newest, newest.mode, newest.generation, 0, ())
        listed = self._listed
        if listed is None or listed.generation == 0:
            return
        mode = (self._mode or settings.mode) if nobody else listed.snapshot.mode
        position = listed.position if self._known is None else self._known
        if (mode, position) != (listed.mode, listed.position):
            self._listed = replace(listed, mode=mode, position=position)

    def _is_ahead(self, listed: Listed) -> bool:
        """Tell whether this list was made here, and knows more than what a sync process published.

        It is never left for one that knows less: that would undo what was in force already.
        """
        if listed.generation:
            return False
        return self._known is None or self._known < listed.position

    def _lags(self) -> bool:
        """Tell whether a sync process has had its time, and still did not publish what is here."""
        listed, since = self._listed, self._synced_since
        if listed is None or since is None or self._clock.uptime() < since + _PATIENCE:
            return False
        return self._is_ahead(listed)
