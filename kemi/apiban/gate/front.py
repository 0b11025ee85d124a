"""The front: verdicts of the last half minute, in a hash table of Kamailio's own.

Calling Python costs a worker half as much as receiving and dropping a packet does. So native code
asks the table ``apiban_front`` first (kamailio/apiban-include.cfg), and calls Python for sources
alone that are not in it: those that were not met twice lately, and everybody after a change.

Asking is counting: native code adds 1 to what it finds (``$shtinc``), and the number that comes out
tells the verdict and the ban's origin by its range. So the table knows how often each source came;
the rtimer process brings that to the sources' hits, once a second and before it empties the table.

The table never knows better than the list. A change of the list or of the settings shows as a
changed word on the board: the rtimer process then empties the table (``Sweeper``), and no worker
puts in a verdict of before the change. It is emptied every ``FRONT_SECONDS`` in any case, and no
ban that ends sooner is put in.

Forged sources can neither fill Kamailio's memory nor make the table slow (its hash is no secret, so
they may all be chosen to fall into one slot): all workers together put in no more than
``_ALLOWANCE`` verdicts between two emptyings, half of them for sources that are not listed. What is
beyond that asks Python.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from apiban.address import pack
from apiban.errors import AddressError
from apiban.gate.board import (
    CHANGES,
    DROPPED,
    DROPPED_DETECTOR,
    DROPPED_LOCAL,
    FRONT,
    PASSED,
    SWEPT,
    WINDOW,
    Board,
)
from apiban.gate.hits import IN_FRONT, Details, Hits

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["COUNT_BITS", "DROP", "FRONT_SECONDS", "PASS", "STATISTICS", "TABLE", "Front", "Sweeper"]

# What a native configuration sees as $rc: only our own 2 may drop; 1, 0 and -1 are Kamailio's.
PASS: Final = 1
DROP: Final = 2

TABLE: Final = "apiban_front"
# The table's "autoexpire" in the configuration, where it is for a rtimer process that stands still.
FRONT_SECONDS: Final = 30.0
_ALLOWANCE: Final = {DROP: 2048, PASS: 1024}
_MET: Final = 4096  # places for sources that one worker met once in this window
_SWEEPER_ALIVE: Final = 1.0  # seconds since its last tick
_ASK_EVERY: Final = 16  # packets that find the table full
_READ_EVERY: Final = 1.0
_ITERATOR: Final = "apiban"
_KEY: Final = f"$shtitkey({_ITERATOR})"
_VALUE: Final = f"$shtitval({_ITERATOR})"

# Above so many bits of an entry stands the verdict: 1 passes, 2 and more drop, by the ban's origin.
# Below them is the count: no source comes that often in half a minute.
COUNT_BITS: Final = 28

# The statistics in which native code counts, and the board's words for them.
STATISTICS: Final = (
    ("apiban_front_dropped", DROPPED),
    ("apiban_front_dropped_local", DROPPED_LOCAL),
    ("apiban_front_dropped_detector", DROPPED_DETECTOR),
    ("apiban_front_passed", PASSED),
)
_STATISTIC: Final = 0xFFFF_FFFF  # Kamailio counts in 32 bits


class Front:
    """Puts one worker's verdicts in front."""

    def __init__(self, ksr: Ksr, board: Board, *, uptime: Callable[[], float]) -> None:
        self._ksr = ksr
        self._words = board.words
        self._uptime = uptime
        self._window = -1
        self._met: list[str] = []
        self._left_alone = False  # whether nobody emptied the table when that was asked last
        self._unasked = 0
        self._refused = -1  # the window in which Kamailio took no more

    def has_met(self, source: str) -> bool:
        """Tell whether the source was met since the table was emptied last, and remember it.

        What comes here is not in the table, or was too long: asking gives an entry whose time is
        over a second life, so it is taken out when nobody else would do that.
        """
        if not self._is_looked_after():
            self._ksr.htable.sht_rm(TABLE, source)
            return False
        if self._words[WINDOW] != self._window:
            self._window = self._words[WINDOW]
            self._met = [""] * _MET
        at = hash(source) % _MET
        if self._met[at] == source:
            return True
        self._met[at] = source
        return False

    def put(self, source: str, verdict: int, origin: int, *, changes: int) -> bool:
        """Let native code answer for a source with a verdict that held at ``changes``.

        ``origin`` is the number of the ban's origin, 0 if the verdict is PASS. Tells whether native
        code answers from now on.
        """
        words, table = self._words, self._ksr.htable
        window = words[WINDOW]
        is_full = words[FRONT] >= _ALLOWANCE[verdict] or window == self._refused
        if is_full and not self._left_alone:
            # A flood from more sources than there is room for comes here with every packet.
            self._unasked = (self._unasked + 1) % _ASK_EVERY
            if self._unasked:
                return False
        self._left_alone = not self._is_looked_after()
        if self._left_alone:
            table.sht_rm(TABLE, source)
        if is_full or self._left_alone:
            return False
        # While we hold the lock of the source's slot nobody else puts it in, and the sweeper of a
        # change that is announced now gets to the slot after us.
        table.sht_lock(TABLE, source)
        try:
            if table.sht_is_null(TABLE, source) < 0:
                return True  # another worker was faster: to put it in again would lose its count
            if words[CHANGES] != changes:
                return False  # the table may have been emptied between the verdict and now
            if table.sht_seti(TABLE, source, verdict + origin << COUNT_BITS) < 0:
                self._refused = window  # each try is an ERROR of Kamailio's
                return False
        finally:
            table.sht_unlock(TABLE, source)
        words[FRONT] += 1  # of two workers at one time one may be lost: it bounds, roughly
        return True

    def _is_looked_after(self) -> bool:
        """Tell whether there is somebody who will empty the table."""
        return self._uptime() - self._words[SWEPT] / 1000 <= _SWEEPER_ALIVE


class Sweeper:
    """Empties the front, and brings its counts to the board and to the hits: rtimer's work.

    ``previous`` is what a reload replaces in this process.
    """

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        ksr: Ksr,
        board: Board,
        hits: Hits,
        *,
        now: Callable[[], float],
        uptime: Callable[[], float],
        previous: Sweeper | None = None,
    ) -> None:
        self._ksr = ksr
        self._words = board.words
        self._hits = hits
        self._now = now
        self._uptime = uptime
        # Up to which number each entry of the table is counted.
        self.counted: dict[str, int] = {} if previous is None else dict(previous.counted)
        self._read_from = 0.0
        self._slot = Board.slot_at(0)  # this process meets no packet: the counts here are native
        self._used = any(self._words[self._slot + word] for _, word in STATISTICS)
        self._swept = -1
        self._window_ends = 0.0

    def tick(self) -> None:
        """Do what is due; Kamailio is not asked for anything while no worker uses the front."""
        words, now = self._words, self._uptime()
        words[SWEPT] = int(now * 1000)
        changes = words[CHANGES]
        self._used = self._used or bool(words[FRONT])
        over = now >= self._window_ends
        if over:
            self._window_ends = now + FRONT_SECONDS
            words[WINDOW] += 1
        if self._used:
            self._count()
            if over or changes != self._swept:
                words[FRONT] = 0  # before it is emptied, so that what comes meanwhile is counted
                self._empty()
            elif now >= self._read_from:
                self._read(remove=False)
        self._swept = changes

    def _empty(self) -> None:
        """Take all out, each entry together with its count.

        What a worker puts in meanwhile stays: it looks itself whether that still holds.
        """
        is_empty = False
        try:
            is_empty = self._read(remove=True)
        finally:
            self.counted.clear()
            if not is_empty:
                self._ksr.htable.sht_reset(TABLE)

    def _read(self, *, remove: bool) -> bool:
        """Bring the counts of what was dropped to the hits; tell whether the table could be read.

        Kamailio holds the lock of one of the table's slots from one step to the next.
        """
        self._read_from = self._uptime() + _READ_EVERY
        table, get = self._ksr.htable, self._ksr.pv.get
        found: list[tuple[object, object]] = []
        if table.sht_iterator_start(_ITERATOR, TABLE) < 0:
            return False
        try:
            more = table.sht_iterator_next(_ITERATOR) > 0
            while more:
                found.append((get(_KEY), get(_VALUE)))
                if remove:  # that goes on to the next entry, too
                    more = table.sht_iterator_rm(_ITERATOR) >= 0
                else:
                    more = table.sht_iterator_next(_ITERATOR) > 0
        finally:
            table.sht_iterator_end(_ITERATOR)
        now = self._now()
        for source, number in found:
            if isinstance(source, str) and isinstance(number, int) and number >> COUNT_BITS >= DROP:
                self._add(source, number, now)
        return True

    def _add(self, source: str, number: int, now: float) -> None:
        """Count what came from a source since the table was read last."""
        verdict = number >> COUNT_BITS
        begin = verdict << COUNT_BITS
        last = self.counted.get(source, begin)
        self.counted[source] = number
        # An entry that was taken out and put in again begins anew.
        news = number - (last if begin <= last <= number else begin)
        if not news:
            return
        with contextlib.suppress(AddressError):
            place = self._hits.place(pack(source), verdict - DROP, Details, now=now)
            if place is not None:
                self._hits.add(place, IN_FRONT, news, now=now)

    def _count(self) -> None:
        for name, word in STATISTICS:
            count = self._ksr.pv.get(f"$stat({name})")
            if isinstance(count, int):
                at = self._slot + word
                self._words[at] += (count - self._words[at]) & _STATISTIC
