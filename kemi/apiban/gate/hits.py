"""The hits: which sources were dropped, how often, and what came from them first.

A table of shared memory beside the board, with room for ``_SLOTS`` sources that a list bans: one
that is met takes a slot, and when all slots that it may take are in use, that of the source that
was seen longest ago, if that was some seconds ago.

Nobody holds a lock, since a worker must never wait. What tells a source apart (its address, the
first line that came from it) is written at once, with a checksum, and read whole: a reader sees all
of it or nothing. A count carries a tag of its source: whoever counts for a source that has just
lost its slot counts for nobody else. Of two workers that count for one source in the same moment
one may be lost.
"""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from apiban.address import pack
from apiban.errors import AddressError
from apiban.gate.shared import Shared
from apiban.snapshot.origin import Origin

__all__ = ["DROPPED", "IN_FRONT", "WOULD_DROP", "Details", "Hit", "Hits", "Place"]

_MAGIC: Final = 0x4150_4942_4849_0001  # "APIBHI", and the layout's version
_SLOTS: Final = 4096
_PROBES: Final = 8
_SLOT: Final = 32  # words
_HEAD: Final = 32  # words
_WORDS: Final = _HEAD + _SLOTS * _SLOT
_IDLE: Final = 5  # seconds unseen, after which a source may lose its slot

# Words of a slot: whose it is, when that was seen last, and counts, each with a tag above 48 bits.
_IDENTITY, _SEEN, IN_FRONT, DROPPED, WOULD_DROP, _ESTIMATED = range(6)
_IN_USE: Final = 6
_COUNT: Final = (1 << 48) - 1
# Then its description: checksum, and what it is of. Family, origin, length of the line, port,
# transport, first seen, address; the line.
_AT_RECORD: Final = 8 * 8
_FACTS: Final = struct.Struct("=BBBH4sI16s")
_CHECK: Final = struct.Struct("=I")
_RECORD: Final = _SLOT * 8 - _AT_RECORD
_LINE: Final = _RECORD - _CHECK.size - _FACTS.size
_READS: Final = 3  # looks at a slot that is just being written
_FAMILIES: Final = {4: socket.AF_INET, 16: socket.AF_INET6}  # by the bytes of an address


# Where a source is counted: its slot's first word, and what must still stand there.
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Details:
    """What is known of a source's first message; nothing of it for one that native code met."""

    transport: str = ""
    port: int = 0
    line: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A source, and what became of its messages since Kamailio's start.

    ``origin`` is that of the ban that dropped it last; times are seconds since 1970; ``transport``
    is empty and ``port`` 0 when they are not known. ``line`` is the beginning of its first message,
    escaped: printable ASCII, empty when it is not known. ``exact`` tells that every message was
    counted; otherwise a part of them was estimated from samples.
    """

    source: str
    origin: Origin
    dropped: int
    would_drop: int
    first_seen: int
    last_seen: int
    transport: str
    port: int
    line: str
    exact: bool


class Hits(Shared):
    """The mapped table. Workers and the rtimer process write, through ``Tally`` and ``Sweeper``."""

    MAGIC = _MAGIC
    WORDS = _WORDS
    WHAT = "the hits"

    # Reading -------------------------------------------------------------------------------------

    def all(self) -> list[Hit]:
        """Give all sources, in no order."""
        slots = (self._read(_HEAD + number * _SLOT) for number in range(_SLOTS))
        return [hit for hit in slots if hit is not None]

    def of(self, source: str) -> Hit | None:
        """Give one source; None when nothing of it is known.

        ``source`` is an address in any spelling.
        """
        try:
            raw = pack(source)
        except AddressError:
            return None
        slot = self._find(raw)
        hit = None if slot is None else self._read(slot)
        return hit if hit is not None and pack(hit.source) == raw else None

    def _read(self, slot: int) -> Hit | None:
        for _ in range(_READS):
            content = self._mapped[slot * 8 : (slot + _SLOT) * 8]
            words = struct.unpack_from(f"={_IN_USE}Q", content)
            if not words[_IDENTITY]:
                return None
            facts = _facts(content[_AT_RECORD:])
            if facts is not None and _identity(facts.raw) == words[_IDENTITY]:
                break
        else:
            return None
        counts = [_count(word, words[_IDENTITY]) for word in words]
        return Hit(
            source=socket.inet_ntop(_FAMILIES[len(facts.raw)], facts.raw),
            origin=Origin(facts.origin),
            dropped=counts[IN_FRONT] + counts[DROPPED],
            would_drop=counts[WOULD_DROP],
            first_seen=facts.first_seen,
            last_seen=max(words[_SEEN], facts.first_seen),
            transport=facts.details.transport,
            port=facts.details.port,
            line=facts.details.line.encode("unicode_escape").decode("ascii"),
            exact=not counts[_ESTIMATED],
        )

    # Writing -------------------------------------------------------------------------------------

    def place(
        self, raw: bytes, origin: int | None, describe: Callable[[], Details], *, now: float
    ) -> Place | None:
        """Give where a source is counted; None when there is no room for it.

        A source that has no slot yet takes one, with what ``describe`` tells. ``origin`` is None
        when it is not known: then that of before stays, or it is a feed.
        """
        slot = self._find(raw)
        if slot is None:
            if self._oldest(raw, now) is None:
                return None
            details = describe()
            slot = self._find(raw)  # another worker may have met it meanwhile
            if slot is None:
                slot = self._take(raw, now)
                if slot is None or not self._describe(slot, raw, origin or 0, details, now):
                    return None
        elif origin not in {None, self._origin(slot)}:
            facts = _facts(self._record(slot))
            if facts is not None:
                self._describe(slot, raw, origin or 0, facts.details, facts.first_seen)
        return slot, _identity(raw)

    def origin(self, place: Place) -> int:
        """Give the number of the origin that a source stands there with."""
        return self._origin(place[0])

    def add(self, place: Place, word: int, number: int, *, now: float) -> bool:
        """Count for a source; False when it has lost its place to another one."""
        words, (slot, identity) = self.words, place
        if words[slot] != identity:
            return False
        at = slot + word
        value = words[at]
        if value >> 48 != identity >> 48:  # of the source before
            value = identity >> 48 << 48
        words[at] = value + number
        words[slot + _SEEN] = int(now)
        return True

    def estimate(self, place: Place) -> None:
        """Note that a part of a source's counts comes from samples."""
        slot, identity = place
        if _count(self.words[slot + _ESTIMATED], identity) == 0:
            self.words[slot + _ESTIMATED] = identity >> 48 << 48 | 1

    def _find(self, raw: bytes) -> int | None:
        words, identity = self.words, _identity(raw)
        for slot in _slots(raw):
            if words[slot] == identity:
                return slot
        return None

    def _take(self, raw: bytes, now: float) -> int | None:
        """Clear a slot for a new source; None when all that it may have are in use."""
        words, oldest = self.words, self._oldest(raw, now)
        if oldest is not None:
            words[oldest] = 0
            for word in range(_SEEN, _IN_USE):
                words[oldest + word] = 0
        return oldest

    def _oldest(self, raw: bytes, now: float) -> int | None:
        """Give the slot, of those that a source may have, that is free or was idle longest."""
        words, oldest, since = self.words, None, now - _IDLE
        for slot in _slots(raw):
            seen = words[slot + _SEEN] if words[slot] else 0
            if seen <= since:
                oldest, since = slot, seen
        return oldest

    def _describe(
        self, slot: int, raw: bytes, origin: int, details: Details, first_seen: float
    ) -> bool:
        """Write whose slot it is; give False when somebody else wrote there at the same time."""
        line = details.line.encode("utf-8", "replace")[:_LINE]
        facts = _FACTS.pack(
            *(len(raw), origin, len(line), details.port),
            *(details.transport.encode("ascii", "replace"), int(first_seen), raw),
        )
        content = (facts + line).ljust(_RECORD - _CHECK.size, b"\0")
        record = _CHECK.pack(zlib.crc32(content)) + content
        at = slot * 8 + _AT_RECORD
        identity = _identity(raw)
        self.words[slot] = identity
        self.words[slot + _SEEN] = max(int(first_seen), self.words[slot + _SEEN])
        self._mapped[at : at + _RECORD] = record
        if self._record(slot) != record or self.words[slot] != identity:
            self.words[slot] = 0  # nobody has it: both meet their source again
            return False
        return True

    def _origin(self, slot: int) -> int:
        return self._mapped[slot * 8 + _AT_RECORD + _CHECK.size + 1]

    def _record(self, slot: int) -> bytes:
        at = slot * 8 + _AT_RECORD
        return self._mapped[at : at + _RECORD]


@dataclass(frozen=True, slots=True)
class _Facts:
    raw: bytes
    origin: int
    details: Details
    first_seen: int


def _facts(record: bytes) -> _Facts | None:
    """Read a description; None when it is not whole."""
    content = record[_CHECK.size :]
    if _CHECK.unpack_from(record)[0] != zlib.crc32(content):
        return None
    size, origin, length, port, transport, first_seen, raw = _FACTS.unpack_from(content)
    if size not in _FAMILIES or origin not in set(Origin):
        return None
    line = content[_FACTS.size :][:length].decode("utf-8", "replace")
    name = transport.rstrip(b"\0").decode("ascii", "replace")
    return _Facts(raw[:size], origin, Details(name, port, line), first_seen)


def _identity(raw: bytes) -> int:
    """Give a number of 64 bits for a source, never 0: one an address, nearly so for IPv6."""
    return zlib.crc32(raw) << 32 | zlib.adler32(raw)


def _slots(raw: bytes) -> list[int]:
    """Give where a source's slot may be."""
    start = zlib.crc32(raw)
    return [_HEAD + (start + probe) % _SLOTS * _SLOT for probe in range(_PROBES)]


def _count(word: int, identity: int) -> int:
    """Give a word's count, if it is that of this source."""
    return word & _COUNT if word >> 48 == identity >> 48 else 0
