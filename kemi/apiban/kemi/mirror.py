"""Our list in a hash table of the operator's: what checks ``$sht(apiban=>$si)`` goes on working.

The rtimer process brings the table to each new list by differences, a few milliseconds at a tick.
The table is the mirror's own: what else is in it goes, and it is emptied in every mode but
``enforce``, since those who check it would drop. docs/recipe.md is the page for operators.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from apiban.address import pack
from apiban.clock import Clock
from apiban.errors import AddressError, ApibanError, SnapshotError
from apiban.gate import Board
from apiban.kemi.rpc import RpcError, can_ask, rpc
from apiban.log import Log
from apiban.settings import Mode, Settings
from apiban.snapshot import Snapshot

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["Mirror", "address_of", "key_of"]

VALUE: Final = 1  # as the published recipe and kamcli put in
MOST: Final = 200_000
LONGEST_RANGE: Final = 4096  # a /20; neighbours that are listed one by one are a range too
_SLICE: Final = 0.01
_REST: Final = 60.0
_AGAIN_EVERY: Final = 60.0
_COMPARE_EVERY: Final = 60.0
_COMPARE_SHARE: Final = 1000  # comparing costs no more than this part of the process's time
_MEMORY_EVERY: Final = 5000  # entries put in between two looks at Kamailio's memory
_KEEP_FREE: Final = 4  # a quarter of Kamailio's shared memory is not the mirror's to use
_STEP: Final = 256
_SIX: Final = 1 << 128  # tells an IPv6 address from the IPv4 address of the same number
_ITERATOR: Final = "apiban_mirror"


class _TableError(ApibanError):
    """The table takes no more, or is not there."""


class Mirror:
    """Keeps one table; ``tick()`` is for the rtimer process alone.

    ``load`` maps the snapshot of a generation or raises SnapshotError; ``previous`` is what a
    reload replaces in this process.
    """

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        ksr: Ksr,
        *,
        board: Board,
        clock: Clock,
        log: Log,
        settings: Callable[[], Settings],
        load: Callable[[int], Snapshot],
        previous: Mirror | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._ksr = ksr
        self._board = board
        self._clock = clock
        self._log = log
        self._settings = settings
        self._load = load
        self._timer = timer
        self.table: str = "" if previous is None else previous.table
        self._held: set[int] | None = None  # what is in the table; None: not known
        self._work: Iterator[None] | None = None
        self._generation = 0  # of the last list that was looked at
        self._list: Snapshot | None = None
        self._rest_until = 0.0
        self._due = 0.0  # when the table is to be brought up next, though the list is the same
        self._compare_from = 0.0
        self._said: object = None

    def tick(self) -> None:
        """Work for a few milliseconds, if there is something to do."""
        table = self._settings().htable.mirror
        if table != self.table:
            self._leave(table)
        if not table:
            return
        try:
            self._look_at_list()
            if self._clock.uptime() >= self._rest_until:
                self._go_on()
        except SnapshotError:
            pass  # the workers say so; the next tick tries again
        except _TableError as error:
            self._work, self._held = None, None
            self._rest_until = self._clock.uptime() + _REST
            self._say(
                "mirror-failed", table=table, reason=str(error), effect="tried again in a minute"
            )

    def _leave(self, table: str) -> None:
        """Take another table; the one before is not kept any more, so nothing may stay in it."""
        if self.table and hasattr(self._ksr, "htable"):
            self._ksr.htable.sht_reset(self.table)
        self.table = table
        self._held, self._work, self._generation = None, None, 0
        self._rest_until, self._said = 0.0, None

    # What is due -------------------------------------------------------------------------------

    def _look_at_list(self) -> None:
        """Take a new list; a mode that drops nothing does not wait for anything."""
        generation = self._board.generation
        if generation == self._generation:
            return
        self._list = self._load(generation)
        self._generation = generation
        # A list that comes while one is worked at waits for it: it might never end otherwise.
        self._due = 0.0
        mode = self._list.mode
        if mode is not Mode.ENFORCE and hasattr(self._ksr, "htable"):
            self._work, self._held = None, None
            if self._ksr.htable.sht_reset(self.table) < 0:
                raise _TableError(f"there is no hash table {self.table}")
            self._say("mirror", table=self.table, entries=0, left_out=0, mode=mode)

    def _go_on(self) -> None:
        if not hasattr(self._ksr, "htable"):
            raise _TableError("the module htable is not loaded")
        if self._list is None or self._list.mode is not Mode.ENFORCE:
            return
        now = self._clock.uptime()
        if self._work is None:
            if now >= self._compare_from:
                self._held = None
            if self._held is not None and now < self._due:
                return
            self._due = math.inf
            self._work = self._steps(self._list)
        stop = self._timer() + _SLICE
        for _ in self._work:
            if self._timer() >= stop:
                return
        self._work = None

    def _steps(self, snapshot: Snapshot) -> Iterator[None]:
        """Bring the table to a list; whoever is not listed any more goes first."""
        if self._held is None:
            self._held, others = self._read_table()
            for key in others:
                yield
                self._ksr.htable.sht_rm(self.table, key)
        held, wanted = self._held, _Wanted(self._clock.now())
        yield from wanted.take(snapshot)
        for number in held - wanted.numbers:
            self._ksr.htable.sht_rm(self.table, key_of(number))
            held.discard(number)
            yield
        for at, number in enumerate(wanted.numbers - held):
            if not at % _MEMORY_EVERY:
                self._check_memory()
            if self._ksr.htable.sht_seti(self.table, key_of(number), VALUE) < 0:
                raise _TableError("Kamailio's shared memory is full")
            held.add(number)
            yield
        # Bans end without a new list.
        self._due = min(self._due, self._clock.uptime() + _AGAIN_EVERY)
        if held or wanted.left_out:
            self._say(
                "mirror",
                table=self.table,
                entries=len(held),
                left_out=wanted.left_out,
                mode=snapshot.mode,
            )

    def _say(self, event: str, **fields: object) -> None:
        """Say what failed once, and what is complete once a change of what is left out."""
        what = (event, fields.get("reason"), fields.get("left_out"), fields.get("mode"))
        if what != self._said:
            self._said = what
            self._log(event, **fields)

    # Kamailio's table --------------------------------------------------------------------------

    def _read_table(self) -> tuple[set[int], list[str]]:
        """Find what is in the table: addresses, and keys that can be none of ours.

        In one go: an iterator holds the lock of the slot that it stands in, and so may not wait for
        the next tick. (``sht_iterator_rm`` is left alone: on 5.6.3 a slot stayed locked after it.)
        """
        htable, get = self._ksr.htable, self._ksr.pv.get
        variable = f"$shtitkey({_ITERATOR})"
        began = self._timer()
        found, others = set[int](), list[str]()
        if htable.sht_iterator_start(_ITERATOR, self.table) < 0:
            raise _TableError(f"there is no hash table {self.table}")
        try:
            while htable.sht_iterator_next(_ITERATOR) > 0:
                try:
                    key = str(get(variable))
                except UnicodeDecodeError:  # no address, and Python cannot name it
                    continue
                number = address_of(key)
                if number is None:
                    others.append(key)
                else:
                    found.add(number)
        finally:
            htable.sht_iterator_end(_ITERATOR)
        took = self._timer() - began
        self._compare_from = self._clock.uptime() + max(_COMPARE_EVERY, took * _COMPARE_SHARE)
        return found, others

    def _check_memory(self) -> None:
        """Leave memory to Kamailio's own work: what it cannot allocate are calls that it loses."""
        if not can_ask(self._ksr):
            return
        try:
            result = rpc(self._ksr, "core.shmmem")
            memory = dict(result) if isinstance(result, tuple) else {}
            free, total = int(memory["free"]), int(memory["total"])
        except (RpcError, KeyError, ValueError, TypeError):
            return
        if free * _KEEP_FREE < total:
            raise _TableError("less than a quarter of Kamailio's shared memory is free")


class _Wanted:
    """What is to be in the table: a list's single addresses and small ranges."""

    def __init__(self, now: float) -> None:
        self.numbers: set[int] = set()
        self.left_out = 0  # ranges that are too large, or too many
        self._now = now

    def take(self, snapshot: Snapshot) -> Iterator[None]:
        """Go through a list, some hundred ranges a step."""
        numbers, now = self.numbers, self._now
        for at, (family, (first, last, expires, _)) in enumerate(snapshot.ranges()):
            if not at % _STEP:
                yield
            if expires <= now:
                continue
            mark = 0 if family == 4 else _SIX
            if last - first >= LONGEST_RANGE or len(numbers) + last - first >= MOST:
                self.left_out += 1
            elif first == last:
                numbers.add(first | mark)
            else:
                numbers.update(range(first | mark, (last | mark) + 1))
        yield


def key_of(number: int) -> str:
    """Write an address as ``$si`` does, which is how the C library does."""
    if number < _SIX:
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return socket.inet_ntop(socket.AF_INET6, (number - _SIX).to_bytes(16, "big"))


def address_of(key: str) -> int | None:
    """Read a key as ``key_of`` writes it; None for any other text."""
    try:
        raw = pack(key)
    except AddressError:
        return None
    number = int.from_bytes(raw, "big") | (0 if len(raw) == 4 else _SIX)
    return number if (len(raw) == 4 and ":" not in key) or key_of(number) == key else None
