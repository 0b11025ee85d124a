"""What all workers remember together: tables of a fixed size, in memory that is never resized.

Whatever comes in from outside, the tables can neither grow nor become slow: a key has four places
to stand in. They hold a keyed hash of what they are asked for and one word of what is known of it,
so that a peer who chooses addresses or Call-IDs cannot choose whose place they take: Python's hash
has a random key that all processes of one Kamailio share, because they are forked from one.

Two processes that write into one place at the same moment lose one of the two: a count may be one
short, and nothing else comes of it. Times are whole seconds of uptime.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from typing import Final

from apiban.errors import BoardError

__all__ = ["Memory", "Pages", "Table"]

_PLACES: Final = 4
_ENTRY: Final = 2  # words: the key's hash; when it was put, and what is known
_KEY: Final = 0xFFFF_FFFF_FFFF_FFFF
_WORD: Final = 0xFFFF_FFFF

# How many entries each table has (a multiple of four), and for how many seconds one is known.
TABLES: Final[Mapping[str, tuple[int, float]]] = {
    "calls": (32_768, 86_400.0),
    "callers": (8_192, 86_400.0),
    "nonces": (32_768, 60.0),
    "marks": (32_768, 86_400.0),
    "counters": (16_384, 86_400.0),
}
_SIZE: Final = sum(entries for entries, _ in TABLES.values()) * _ENTRY * 8


class Table:
    """Remembers a number below 2**32 for a text, for a while.

    ``uptime`` gives seconds that only grow. Where all places of a text are taken the oldest goes,
    unless it is asked to ``keep``.
    """

    def __init__(self, words: memoryview, *, lasts: float, uptime: Callable[[], float]) -> None:
        self._words = words
        self._sets = len(words) // (_PLACES * _ENTRY)
        self._lasts = lasts
        self._uptime = uptime

    def get(self, text: str, *, within: float | None = None) -> int | None:
        """Give what is known of a text; None when nothing is, or for longer than ``within``."""
        found = self.entry(text)
        if found is None or (within is not None and self._uptime() - found[0] >= within):
            return None
        return found[1]

    def entry(self, text: str) -> tuple[int, int] | None:
        """Give when it was put, and what is known of it."""
        words, key = self._words, _key(text)
        now = int(self._uptime())
        for at in self._places(key):
            if words[at] == key:
                put, known = words[at + 1] >> 32, words[at + 1] & _WORD
                return (put, known) if now - put < self._lasts else None
        return None

    def put(self, text: str, known: int = 1, *, at: int | None = None, keep: bool = False) -> bool:
        """Remember it from now on, or as put ``at`` a time; False when there is no place for it.

        With ``keep`` no text that is still known goes for it.
        """
        words, key = self._words, _key(text)
        now = int(self._uptime())
        places = self._places(key)
        best, best_put = places[0], 1 << 32
        for place in places:
            if words[place] == key:
                best, best_put = place, -1
                break
            put = words[place + 1] >> 32 if words[place] else 0
            if put < best_put:
                best, best_put = place, put
        if keep and words[best] not in {0, key} and now - best_put < self._lasts:
            return False
        words[best] = 0  # nobody may read the new key with what was known of the old one
        words[best + 1] = (now if at is None else at) << 32 | known & _WORD
        words[best] = key
        return True

    def forget(self, text: str) -> bool:
        """Remove it; tell whether it was there."""
        words, key = self._words, _key(text)
        for at in self._places(key):
            if words[at] == key:
                words[at] = 0
                return True
        return False

    def count(self, text: str, *, window: float) -> int:
        """Count one more; give how many there were since the first one of this window."""
        found = self.entry(text)
        if found is None or self._uptime() - found[0] >= window:
            self.put(text, 1)
            return 1
        self.put(text, found[1] + 1, at=found[0])
        return found[1] + 1

    def uncount(self, text: str) -> None:
        """Take one back."""
        found = self.entry(text)
        if found is not None and found[1]:
            self.put(text, found[1] - 1, at=found[0])

    def _places(self, key: int) -> range:
        first = key % self._sets * (_PLACES * _ENTRY)
        return range(first, first + _PLACES * _ENTRY, _ENTRY)


class Pages:
    """The memory of all tables; to be made before the workers are forked.

    ``mapped`` is what ``app_python.reload`` hands over.

    Raises:
        BoardError: the earlier code had other tables.

    """

    def __init__(self, mapped: mmap.mmap | None = None) -> None:
        self.mapped = mapped if mapped is not None else mmap.mmap(-1, _SIZE)
        if len(self.mapped) != _SIZE:
            raise BoardError("the tables of what was learned are others: restart Kamailio")
        self.words = memoryview(self.mapped).cast("Q")


class Memory:
    """The tables of one Kamailio."""

    def __init__(self, pages: Pages, *, uptime: Callable[[], float]) -> None:
        first = 0
        tables: dict[str, Table] = {}
        for name, (entries, lasts) in TABLES.items():
            end = first + entries * _ENTRY
            tables[name] = Table(pages.words[first:end], lasts=lasts, uptime=uptime)
            first = end
        self.calls = tables["calls"]
        self.callers = tables["callers"]
        self.nonces = tables["nonces"]
        self.marks = tables["marks"]
        self.counters = tables["counters"]


def _key(text: str) -> int:
    return hash(text) & _KEY or 1
