"""The front: verdicts of the last half minute, in a hash table of Kamailio's own.

Calling Python costs a worker half as much as receiving and dropping a packet does. So native code
asks the table ``apiban_front`` first (kamailio/apiban-include.cfg), and calls Python for sources
alone that are not in it: those that were not met twice lately, and everybody after a change.

The table never knows better than the list. A change of the list or of the settings shows as a
changed word on the board: the rtimer process then empties the table (``Sweeper``), and a worker
that put a verdict in while that happened takes it out again. It is emptied every ``FRONT_SECONDS``
in any case, and no ban that ends sooner is put in.

Forged sources can neither fill Kamailio's memory nor make the table slow (its hash is no secret, so
they may all be chosen to fall into one slot): all workers together put in no more than
``_ALLOWANCE`` verdicts between two emptyings, half of them for sources that are not listed. What is
beyond that asks Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from apiban.gate.board import CHANGES, DROPPED, FRONT, PASSED, SWEPT, WINDOW, Board

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["DROP", "FRONT_SECONDS", "PASS", "STATISTICS", "TABLE", "Front", "Sweeper"]

# What a native configuration sees as $rc: only our own 2 may drop; 1, 0 and -1 are Kamailio's.
PASS: Final = 1
DROP: Final = 2

TABLE: Final = "apiban_front"
# The table's "autoexpire" in the configuration, where it is for a rtimer process that stands still.
FRONT_SECONDS: Final = 30.0
_ALLOWANCE: Final = {DROP: 2048, PASS: 1024}
_MET: Final = 4096  # places for sources that one worker met once in this window
_SWEEPER_ALIVE: Final = 1.0  # seconds since its last tick

# The statistics in which native code counts, and the board's words for them.
STATISTICS: Final = (("apiban_front_dropped", DROPPED), ("apiban_front_passed", PASSED))
_STATISTIC: Final = 0xFFFF_FFFF  # Kamailio counts in 32 bits


class Front:
    """Puts one worker's verdicts in front."""

    def __init__(self, ksr: Ksr, board: Board, *, uptime: Callable[[], float]) -> None:
        self._ksr = ksr
        self._words = board.words
        self._uptime = uptime
        self._window = -1
        self._met: list[str] = []
        self._refused = -1  # the window in which Kamailio took no more

    def has_met(self, source: str) -> bool:
        """Tell whether the source was met since the table was emptied last, and remember it."""
        if self._words[WINDOW] != self._window:
            self._window = self._words[WINDOW]
            self._met = [""] * _MET
        at = hash(source) % _MET
        if self._met[at] == source:
            return True
        self._met[at] = source
        return False

    def put(self, source: str, verdict: int, *, changes: int) -> None:
        """Let native code answer for a source with a verdict that held at ``changes``."""
        words, table = self._words, self._ksr.htable
        taken, window = words[FRONT], words[WINDOW]
        if taken >= _ALLOWANCE[verdict] or window == self._refused:
            return
        if self._uptime() - words[SWEPT] / 1000 > _SWEEPER_ALIVE:
            return  # nobody would empty it
        if table.sht_seti(TABLE, source, verdict) < 0:
            self._refused = window  # each try is an ERROR of Kamailio's
            return
        words[FRONT] = taken + 1  # of two workers at one time one may be lost: it bounds, roughly
        if words[CHANGES] != changes:
            # The table may have been emptied between the verdict and now.
            table.sht_rm(TABLE, source)


class Sweeper:
    """Empties the front, and brings its counts to the board: rtimer's work."""

    def __init__(self, ksr: Ksr, board: Board, *, uptime: Callable[[], float]) -> None:
        self._ksr = ksr
        self._words = board.words
        self._uptime = uptime
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
            if over or changes != self._swept:
                words[FRONT] = 0  # before it is emptied, so that what comes meanwhile is counted
                self._ksr.htable.sht_reset(TABLE)
            self._count()
        self._swept = changes

    def _count(self) -> None:
        for name, word in STATISTICS:
            count = self._ksr.pv.get(f"$stat({name})")
            if isinstance(count, int):
                at = self._slot + word
                self._words[at] += (count - self._words[at]) & _STATISTIC
