"""Whether feed, store, published list and workers agree; an alarm when they do not for a minute.

Everything else believes that what was written is there. This looks at the things themselves, a few
at a time: entries of the store in the list that the workers map, ranges of that list in the store,
the number of the feed's entries against what was listed and removed since the last full pass, and
the lists that busy workers use. What does not fit is looked at again each second, so that a change
on its way to the workers is none, and the same doubt must last for a minute.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Final

from apiban.address import Family, Network
from apiban.clock import Clock
from apiban.errors import SnapshotError
from apiban.gate.board import Board
from apiban.gate.lag import Lag
from apiban.log import Log
from apiban.settings import Settings
from apiban.snapshot import Snapshot, load_snapshot, map_snapshot
from apiban.snapshot.format import FOREVER
from apiban.snapshot.publish import runtime_path
from apiban.store import FEED_SOURCE, Entry, Filter, Store
from apiban.sync.machine import Sync
from apiban.sync.report import PAIRS, Pair
from apiban.verdict.exempt import exemptions

__all__ = ["Drift"]

_EVERY: Final = 1.0
_COUNT_EVERY: Final = 60.0
_LASTS: Final = 60.0
# How many addresses a look takes: in ten seconds 200 of the store, and 50 of the list.
_FROM_STORE: Final = 20
_FROM_LIST: Final = 5
_SUSPECTS: Final = 50
_JOURNAL: Final = 20_000  # more lines than that in a minute are not read
_ENDING: Final = 5.0  # a ban that ends within so many seconds is as good as over

_READABLE: Final = "the announced list cannot be read"
_MODE: Final = "the list has another mode"
_REPLACED: Final = "the store's file was moved or replaced"
_WORKERS: Final = "busy workers use an older list"
_HELD: Final = "a full pass is held"
_COUNT: Final = "entries of the feed came or went by other hands"


class Drift:
    """Looks for what does not fit; ``found`` are the pairs that an alarm is on for."""

    def __init__(
        self, *, board: Board, clock: Clock, log: Log, chance: random.Random | None = None
    ) -> None:
        self._board = board
        self._clock = clock
        self._log = log
        self._chance = chance or random.Random()  # noqa: S311 - it draws samples, not keys
        self._lag = Lag()
        self._tally = _Tally(clock)
        self._look_from = 0.0
        self._mapped: tuple[object, Snapshot] | None = None
        self._store: Store | None = None
        self._file = (0, 0)
        self._since: dict[tuple[Pair, str], float] = {}
        self._suspects: list[Network] = []
        self.found: tuple[Pair, ...] = ()

    def look(self, store: Store, sync: Sync, settings: Settings, own: tuple[Network, ...]) -> None:
        """Look, if it is time; ``settings`` in the mode that is in force.

        Raises:
            StoreError: the store cannot be read.

        """
        now = self._clock.uptime()
        if now < self._look_from:
            return
        self._look_from = now + _EVERY
        if store is not self._store:
            self._store, self._file = store, _file(settings)
        doubts: set[tuple[Pair, str]] = set()
        doubts |= {("feed-store", what) for what in self._feed(store, sync)}
        doubts |= {("store-list", what) for what in self._list(store, settings, own)}
        doubts |= {("list-workers", what) for what in self._workers()}
        self._since = {doubt: self._since.get(doubt, now) for doubt in doubts}
        self._alarm(now)

    def _alarm(self, now: float) -> None:
        lasting: dict[Pair, list[str]] = {pair: [] for pair in PAIRS}
        for (pair, what), since in self._since.items():
            if now - since >= _LASTS:
                lasting[pair].append(what)
        for pair, reasons in lasting.items():
            if reasons and pair not in self.found:
                reason = min(reasons)
                self._log("drift", between=pair, state="begun", reason=reason, doubts=len(reasons))
            elif pair in self.found and not reasons:
                self._log("drift", between=pair, state="over")
        self.found = tuple(pair for pair in PAIRS if lasting[pair])

    # What does not fit -------------------------------------------------------------------------

    def _feed(self, store: Store, sync: Sync) -> Iterator[str]:
        if sync.state.held:
            yield _HELD
        if sync.held_back:
            yield f"a page is held: {sync.held_back}"
        if self._tally.is_off(store, sync):
            yield _COUNT

    def _workers(self) -> Iterator[str]:
        if self._lag.behind(self._board.generation, self._board.slots()):
            yield _WORKERS

    def _list(self, store: Store, settings: Settings, own: tuple[Network, ...]) -> Iterator[str]:
        if self._file != _file(settings):
            yield _REPLACED
        snapshot = self._announced(settings)
        if snapshot is None:
            yield _READABLE
            return
        if snapshot.mode is not settings.mode:
            yield _MODE
        grace = settings.feed.stale_max
        over = self._clock.now() + _ENDING
        hosts = dict.fromkeys(self._suspects)
        hosts |= dict.fromkeys(self._some_of_list(snapshot))
        for entry in self._some_of_store(store, snapshot):
            host = Network(entry.network.family, entry.network.first, entry.network.first)
            if snapshot.expires(str(host)) != _end([entry], grace):
                hosts[host] = None
        self._suspects = []
        for host in hosts:
            listed = snapshot.expires(str(host))
            said = _end(store.touching(host), grace)
            if exemptions(host, settings=settings, own=own, store=store, now=self._clock.now()):
                said = 0
            if listed != said and max(listed, said) > over and len(self._suspects) < _SUSPECTS:
                self._suspects.append(host)
                yield str(host)

    # Samples -----------------------------------------------------------------------------------

    def _announced(self, settings: Settings) -> Snapshot | None:
        """Give the list that a worker would take now."""
        board = self._board
        generation, path = board.generation, board.memory_path
        if self._mapped is not None and self._mapped[0] == (generation, path):
            return self._mapped[1]
        self._mapped = None
        for read, source in (
            (map_snapshot, path),
            (load_snapshot, runtime_path(settings.paths.runtime, generation)),
        ):
            with contextlib.suppress(SnapshotError):
                snapshot = read(source)
                if snapshot.generation == generation:
                    self._mapped = (generation, path), snapshot
                    return snapshot
        return None

    def _some_of_list(self, snapshot: Snapshot) -> Iterator[Network]:
        if len(snapshot):
            for _ in range(_FROM_LIST):
                block = snapshot.block(self._chance.randrange(len(snapshot)))
                number = self._chance.randint(block.first, block.last)
                yield Network(block.family, number, number)

    def _some_of_store(self, store: Store, snapshot: Snapshot) -> list[Entry]:
        """Give a run of entries from anywhere: from within the list, or from no man's land."""
        if self._chance.random() < 0.75 and len(snapshot):
            begin = next(self._some_of_list(snapshot))
        else:
            family: Family = 6 if self._chance.random() < 0.25 else 4
            number = self._chance.getrandbits(32 if family == 4 else 128)
            begin = Network(family, number, number)
        found = store.page(Filter(), after=(begin, ""), limit=_FROM_STORE)
        if len(found) < _FROM_STORE:  # it is the end of the list: go on at its begin
            found += store.page(Filter(), limit=_FROM_STORE - len(found))
        return found


class _Tally:
    """Keeps the number of the feed's entries by the journal; others write no line there.

    It begins anew when a full pass ended, which brings feed and store together.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._count_from = 0.0
        self._store: Store | None = None
        self._pass_ended: float | None = None
        self._position = 0
        self._expected = 0
        self._is_off = False

    def is_off(self, store: Store, sync: Sync) -> bool:
        """Tell whether the number was another one when it was counted last."""
        ended = sync.state.pass_ended
        if store is not self._store or ended != self._pass_ended:
            self._begin(store, ended)
        elif ended is not None and self._clock.uptime() >= self._count_from:
            self._count(store)
        return self._is_off

    def _begin(self, store: Store, ended: float | None) -> None:
        self._store, self._pass_ended = store, ended
        self._position, self._expected = store.position(), store.count(FEED_SOURCE)
        self._count_from = self._clock.uptime() + _COUNT_EVERY
        self._is_off = False

    def _count(self, store: Store) -> None:
        self._count_from = self._clock.uptime() + _COUNT_EVERY
        position = store.position()
        if position - self._position > _JOURNAL:
            self._begin(store, self._pass_ended)
            return
        news = store.journal(position - self._position)
        count = store.count(FEED_SOURCE)
        if store.position() != position:
            return  # somebody is writing just now: those were not the lines that were asked for
        for _, action, source, _ in news:
            if source == FEED_SOURCE:
                self._expected += 1 if action == "listed" else -1
        self._position = position
        self._is_off = count != self._expected


def _end(entries: Iterable[Entry], grace: float) -> int:
    """Give when the longest of these bans ends in a list; 0 when there is none."""
    return max((min(entry.ends(grace), FOREVER) for entry in entries), default=0)


def _file(settings: Settings) -> tuple[int, int]:
    """Name the store's file, whatever its path is; (0, 0) when it is not there."""
    try:
        status = (settings.paths.state / "store.db").stat()
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino
