"""The board: a page of shared memory that every process of the node has mapped.

It tells the workers that a new snapshot or new settings are there (a load from memory, no system
call), and everyone else what each worker did. All of it is 64-bit words, each written by one
process alone, but for the first-drop words, where a lost race costs one log line.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

from apiban.gate.shared import Shared

__all__ = ["Board", "Counts", "Slot"]

_MAGIC: Final = 0x4150_4942_414E_0002  # "APIBAN", and the layout's version
_SLOTS: Final = 512
_HEAD: Final = 64  # words
_MET: Final = 4096  # words: sources whose first drop was said
_SLOT: Final = 24  # words
_FIRST_SLOT: Final = _HEAD + _MET
_WORDS: Final = _FIRST_SLOT + _SLOTS * _SLOT

# Words of the head; the first and the fourth are shared.py's.
GENERATION: Final = 1
SETTINGS: Final = 2
CHANGES: Final = 5  # grows with either: the one word that the hot path looks at
_AT_KEEPER: Final = 6  # who has the list in memory: process id, and the number of its open file
_AT_HANDLE: Final = 7
# The front (front.py): verdicts put in since it was emptied, how often half a minute was over, and
# when the process that empties it was there last, in milliseconds of uptime.
FRONT: Final = 8
WINDOW: Final = 9
SWEPT: Final = 10
# The number of the latest change in the store's journal that the published list knows.
_AT_POSITION: Final = 11
# When the sync process began its last tick, in milliseconds of uptime.
_AT_BEAT: Final = 12
_AT_SAID: Final = 4

# Words of a slot. DROPPED counts the drops that a feed's bans caused, which are the hottest ones;
# those of the operator's and of the detector's bans have words of their own. Words 8 to 15 are for
# what else Kamailio runs on a board (the honeypot's counts).
_PID, _RANK, _IN_USE, DROPPED, WOULD_DROP, PASSED, FAULTS, _SPARE = range(8)
DROPPED_LOCAL: Final = 16
DROPPED_DETECTOR: Final = 17
# By the number of the ban's origin.
DROPPED_BY: Final = (DROPPED, DROPPED_LOCAL, DROPPED_DETECTOR)
_COUNTED: Final = (DROPPED, WOULD_DROP, PASSED, FAULTS, DROPPED_LOCAL, DROPPED_DETECTOR)


@dataclass(frozen=True, slots=True)
class Counts:
    """What one process, or all of them, did since Kamailio's start.

    ``dropped`` is all that was dropped; ``dropped_local`` and ``dropped_detector`` are the parts of
    it that the operator's and the detector's bans caused, ``dropped_feed`` the rest.
    """

    dropped: int
    would_drop: int
    passed: int
    faults: int
    dropped_local: int = 0
    dropped_detector: int = 0

    @property
    def dropped_feed(self) -> int:
        """What bans of a feed dropped."""
        return self.dropped - self.dropped_local - self.dropped_detector

    def __add__(self, other: Counts) -> Counts:
        return Counts(*map(operator.add, astuple(self), astuple(other)))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*map(operator.sub, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class Slot:
    """One process's line on the board; ``generation`` is the snapshot that it uses."""

    pid: int
    rank: int
    generation: int
    counts: Counts


class Board(Shared):
    """The mapped words. ``words`` is for the gate; everybody else uses the methods."""

    MAGIC = _MAGIC
    WORDS = _WORDS
    WHAT = "the shared counters"

    @property
    def generation(self) -> int:
        """The generation that the workers are to use."""
        return self.words[GENERATION]

    @property
    def position(self) -> int:
        """The number of the latest change in the store's journal that the list knows."""
        return self.words[_AT_POSITION]

    def announce(
        self, generation: int, *, keeper: int = 0, handle: int = 0, position: int = 0
    ) -> None:
        """Tell the workers that the snapshot of this generation is in place.

        ``keeper`` is the process that has it in memory, as its open file ``handle``; ``position``
        is what it knows of the store's journal, 0 when that is not known.
        """
        if position:
            self.words[_AT_POSITION] = position
        self.words[_AT_KEEPER] = keeper
        self.words[_AT_HANDLE] = handle
        self.words[GENERATION] = generation
        self.words[CHANGES] += 1

    def beat(self, uptime: float) -> None:
        """Say that the sync process is at work."""
        self.words[_AT_BEAT] = int(uptime * 1000)

    @property
    def beaten(self) -> float | None:
        """The uptime at which the sync process began its last tick; None before its first."""
        return self.words[_AT_BEAT] / 1000 or None

    def is_kept(self, uptime: float, *, within: float) -> bool:
        """Tell whether a sync process took a tick within so many seconds.

        One that is still to come is that of a machine that was started anew since.
        """
        beaten = self.beaten
        return beaten is not None and 0 <= uptime - beaten < within

    @property
    def memory_path(self) -> Path:
        """Give the path by which the list in the keeper's memory can be opened."""
        return Path(f"/proc/{self.words[_AT_KEEPER]}/fd/{self.words[_AT_HANDLE]}")

    def announce_settings(self) -> None:
        """Tell the workers that the settings were changed, and are good."""
        self.words[SETTINGS] += 1
        self.words[CHANGES] += 1

    @staticmethod
    def slot_at(rank: int) -> int:
        """Give the index of the first word of a process's slot.

        SIP workers have ranks from 1; main and the timers share slot 0, and see no packet: there
        the front's counts stand.
        """
        return _FIRST_SLOT + min(max(rank, 0), _SLOTS - 1) * _SLOT

    def take_slot(self, rank: int, pid: int) -> int:
        """Sign in; counts of the same rank go on. Give the slot's first word's index."""
        at = self.slot_at(rank)
        self.words[at + _PID] = pid
        self.words[at + _RANK] = max(rank, 0)
        return at

    def use(self, slot: int, generation: int) -> None:
        """Say which generation this process uses."""
        self.words[slot + _IN_USE] = generation

    def slots(self) -> list[Slot]:
        """Give the processes that signed in."""
        found = []
        for rank in range(_SLOTS):
            at = self.slot_at(rank)
            if self.words[at + _PID]:
                found.append(
                    Slot(
                        self.words[at + _PID],
                        self.words[at + _RANK],
                        self.words[at + _IN_USE],
                        self._counts(at),
                    )
                )
        return found

    def front(self) -> Counts:
        """Give what native code dropped and passed for the workers, without asking Python."""
        return self._counts(self.slot_at(0))

    def total(self) -> Counts:
        """Sum over all processes."""
        return _counts_of([sum(self.words[_FIRST_SLOT + word :: _SLOT]) for word in _COUNTED])

    def _counts(self, at: int) -> Counts:
        return _counts_of([self.words[at + word] for word in _COUNTED])

    def claim(self, fingerprint: int, *, now: float, slot: int) -> bool:
        """Claim a source's first-drop line for the process of ``slot``; once an hour a source.

        ``fingerprint`` is 32 bits of the source's address. Two processes that meet a source in
        the same moment may both claim it: the later claim is the one that ``may_say`` honours.
        """
        met, mark = self._mark(fingerprint, now, slot)
        if self.words[met] >> 16 == mark >> 16:
            return False
        self.words[met] = mark
        return True

    def may_say(
        self, fingerprint: int, *, now: float, slot: int, interval: float, limit: int
    ) -> bool:
        """Tell whether the claim still holds, and count it: ``limit`` lines an interval for all."""
        met, mark = self._mark(fingerprint, now, slot)
        if self.words[met] != mark:
            return False
        period = int(now // interval) & 0xFFFF_FFFF
        said = self.words[_AT_SAID]
        count = said & 0xFFFF if said >> 32 == period else 0
        if count >= limit:
            return False
        self.words[_AT_SAID] = period << 32 | (count + 1)
        return True

    @staticmethod
    def _mark(fingerprint: int, now: float, slot: int) -> tuple[int, int]:
        """Give the word of a source, and what it holds: fingerprint, hour, and who claimed it."""
        hour = int(now // 3600) & 0xFFFF
        mark = (fingerprint & 0xFFFF_FFFF) << 32 | hour << 16 | slot & 0xFFFF
        return _HEAD + fingerprint % _MET, mark


def _counts_of(words: Sequence[int]) -> Counts:
    """Give the counts of ``_COUNTED``'s words."""
    feed, would_drop, passed, faults, local, detector = words
    return Counts(feed + local + detector, would_drop, passed, faults, local, detector)
