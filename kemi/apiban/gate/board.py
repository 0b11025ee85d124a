"""The board: a page of shared memory that every process of the node has mapped.

It tells the workers that a new snapshot or new settings are there (a load from memory, no system
call), and everyone else what each worker did. All of it is 64-bit words, each written by one
process alone, but for the first-drop words, where a lost race costs one log line.

The file is made anew at each start of Kamailio, preallocated, and never resized: a page that is
mapped can neither vanish nor fail. Where it cannot be made, memory without a name serves; the
counters then cannot be read from outside.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from apiban.errors import BoardError

__all__ = ["Board", "Counts", "Slot"]

_MAGIC: Final = 0x4150_4942_414E_0001  # "APIBAN", and the layout's version
_SLOTS: Final = 512
_HEAD: Final = 64  # words
_MET: Final = 4096  # words: sources whose first drop was said
_SLOT: Final = 16  # words
_WORDS: Final = _HEAD + _MET + _SLOTS * _SLOT

# Words of the head.
_AT_MAGIC: Final = 0
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
_AT_STARTED: Final = 3
_AT_SAID: Final = 4

# Words of a slot.
_PID, _RANK, _IN_USE, DROPPED, WOULD_DROP, PASSED, FAULTS, _SPARE = range(8)


@dataclass(frozen=True, slots=True)
class Counts:
    """What one process, or all of them, did since Kamailio's start."""

    dropped: int
    would_drop: int
    passed: int
    faults: int

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.dropped - other.dropped,
            self.would_drop - other.would_drop,
            self.passed - other.passed,
            self.faults - other.faults,
        )


@dataclass(frozen=True, slots=True)
class Slot:
    """One process's line on the board; ``generation`` is the snapshot that it uses."""

    pid: int
    rank: int
    generation: int
    counts: Counts


class Board:
    """The mapped words. ``words`` is for the gate; everybody else uses the methods."""

    def __init__(self, handle: int) -> None:
        """Map the board behind an open file, which this object then owns.

        Raises:
            BoardError: it is no board of this layout.

        """
        self._handle = handle
        try:
            mapped = mmap.mmap(handle, _WORDS * 8)
        except (OSError, ValueError) as error:
            raise BoardError(f"the shared counters cannot be mapped: {error}") from None
        self.words = memoryview(mapped).cast("Q")
        if self.words[_AT_MAGIC] != _MAGIC:
            raise BoardError("the shared counters are of another version: restart Kamailio")

    @classmethod
    def create(cls, path: Path, *, now: float) -> Self:
        """Make a new board at ``path``, in the place of an older one.

        Raises:
            BoardError: it cannot be made there.

        """
        scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            handle = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
            try:
                board = cls._begin(handle, now)
                scratch.replace(path)
            except BaseException:
                os.close(handle)
                raise
        except OSError as error:
            raise BoardError(f"{path}: cannot be made: {error.strerror}") from None
        finally:
            with contextlib.suppress(OSError):
                scratch.unlink()
        return board

    @classmethod
    def unnamed(cls, *, now: float) -> Self:
        """Make a board that only this process and its children can reach."""
        return cls._begin(os.memfd_create("apiban"), now)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map the board of a running node.

        Raises:
            BoardError: there is none.

        """
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise BoardError(f"{path}: cannot be opened: {error.strerror}") from None
        try:
            board = cls(handle)
        finally:
            os.close(handle)  # the mapping keeps what it needs
        board._handle = -1
        return board

    @classmethod
    def _begin(cls, handle: int, now: float) -> Self:
        os.posix_fallocate(handle, 0, _WORDS * 8)
        os.pwrite(handle, _MAGIC.to_bytes(8, sys.byteorder), 0)
        board = cls(handle)
        board.words[_AT_STARTED] = int(now)
        return board

    @property
    def handle(self) -> int:
        """The open file: a child process gets the same board through it; -1 after ``open``."""
        return self._handle

    @property
    def generation(self) -> int:
        """The generation that the workers are to use."""
        return self.words[GENERATION]

    def announce(self, generation: int, *, keeper: int = 0, handle: int = 0) -> None:
        """Tell the workers that the snapshot of this generation is in place.

        ``keeper`` is the process that has it in memory, as its open file ``handle``.
        """
        self.words[_AT_KEEPER] = keeper
        self.words[_AT_HANDLE] = handle
        self.words[GENERATION] = generation
        self.words[CHANGES] += 1

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
        return _HEAD + _MET + min(max(rank, 0), _SLOTS - 1) * _SLOT

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
        counts = [self._counts(self.slot_at(rank)) for rank in range(_SLOTS)]
        return Counts(
            sum(one.dropped for one in counts),
            sum(one.would_drop for one in counts),
            sum(one.passed for one in counts),
            sum(one.faults for one in counts),
        )

    def _counts(self, at: int) -> Counts:
        words = self.words
        return Counts(
            words[at + DROPPED], words[at + WOULD_DROP], words[at + PASSED], words[at + FAULTS]
        )

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
