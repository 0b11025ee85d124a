"""The front: verdicts of the last half minute, in a hash table of Kamailio's own.

Calling Python costs a worker half as much as receiving and dropping a packet does. So native code
asks the table ``apiban_front`` first (kamailio/apiban-include.cfg), and calls Python for sources
alone that are not in it: those that were not met twice lately, and everybody after a change.

The table never knows better than the list. A change of the list or of the settings shows as a
changed word on the board: the rtimer process then empties the table (``Sweeper``), and a worker
that put a verdict in while that happened takes it out again. An entry is forgotten after
``FRONT_SECONDS``, and no ban that ends sooner is put in.

Forged sources cannot fill Kamailio's memory: a source has to be met twice, and each worker puts
in no more than ``_ALLOWANCE`` verdicts in ``FRONT_SECONDS``; what is beyond that asks Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from apiban.gate.board import CHANGES, DROPPED, FRONT, PASSED, Board

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["FRONT_SECONDS", "TABLE", "Front", "Sweeper"]

TABLE: Final = "apiban_front"
FRONT_SECONDS: Final = 30.0  # the table's "autoexpire" in the configuration
_ALLOWANCE: Final = 2000
_MET: Final = 4096  # sources that one worker remembers to have met once

# The statistics in which native code counts, and the board's words for them.
_COUNTED: Final = (("apiban_front_dropped", DROPPED), ("apiban_front_passed", PASSED))
_STATISTIC: Final = 0xFFFF_FFFF  # Kamailio counts in 32 bits


class Front:
    """Puts one worker's verdicts in front."""

    def __init__(self, ksr: Ksr, board: Board, *, uptime: Callable[[], float]) -> None:
        self._ksr = ksr
        self._words = board.words
        self._uptime = uptime
        self._met = [""] * _MET
        self._left = 0
        self._renewed_from = 0.0

    def has_met(self, source: str) -> bool:
        """Tell whether the source was met lately, and remember it."""
        at = hash(source) % _MET
        if self._met[at] == source:
            return True
        self._met[at] = source
        return False

    def put(self, source: str, verdict: int, *, changes: int) -> None:
        """Let native code answer for a source with a verdict that held at ``changes``."""
        if not self._left and not self._renew():
            return
        self._left -= 1
        self._words[FRONT] = 1
        table = self._ksr.htable
        if table.sht_seti(TABLE, source, verdict) < 0:
            self._left = 0  # no memory, or no such table: not again for a while
        elif self._words[CHANGES] != changes:
            # The table may have been emptied between the verdict and now.
            table.sht_rm(TABLE, source)

    def _renew(self) -> bool:
        now = self._uptime()
        if now < self._renewed_from:
            return False
        self._renewed_from = now + FRONT_SECONDS
        self._left = _ALLOWANCE
        return True


class Sweeper:
    """Empties the front after a change, and brings its counts to the board: rtimer's work."""

    def __init__(self, ksr: Ksr, board: Board) -> None:
        self._ksr = ksr
        self._words = board.words
        self._slot = Board.slot_at(0)  # this process meets no packet: the counts here are native
        self._swept = -1

    def tick(self) -> None:
        """Do what is due; nothing while no worker put anything in."""
        words = self._words
        if not words[FRONT]:
            return
        changes = words[CHANGES]
        if changes != self._swept:
            self._ksr.htable.sht_reset(TABLE)
            self._swept = changes
        for name, word in _COUNTED:
            count = self._ksr.pv.get(f"$stat({name})")
            if isinstance(count, int):
                at = self._slot + word
                words[at] += (count - words[at]) & _STATISTIC
