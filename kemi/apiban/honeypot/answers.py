"""How much is answered to sources that proved nothing: a forged source must not be worth it.

Each source has a few answers in a window of time, all together a number a second, and no answer
is larger than one and a half times what was asked. The counts stand in one fixed piece of memory
that the workers share, whatever the number of sources. A source's place in it is found by a keyed
hash, so that nobody can choose whom he shares it with; who shares one has fewer answers, not more.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import secrets
from collections.abc import Callable
from typing import Final

from apiban.address import pack
from apiban.honeypot.settings import AnswerSettings

__all__ = ["Answers", "fits"]

_SOURCES: Final = 65_536
_KEY: Final = 2  # words of 64 bits
_OVERALL: Final = _KEY  # after the key: the count of all
_FIRST: Final = _OVERALL + 1
_WORDS: Final = _FIRST + _SOURCES
_MOST: Final = 0xFFFF_FFFF
_GROWTH: Final = 1.5


def fits(answer: int, request: int) -> bool:
    """Tell whether an answer of so many bytes is no gain to who forges a request of so many."""
    return answer <= _GROWTH * request


class Answers:
    """The budget of answers to unproven sources, of all processes that have it by fork."""

    def __init__(
        self, settings: AnswerSettings, now: Callable[[], float], handle: int | None = None
    ) -> None:
        """Begin anew, or with the counts behind the open file of another one.

        ``now`` gives seconds that only grow, alike in all processes.
        """
        self.settings = settings
        self._now = now
        if handle is None:
            self.handle = os.memfd_create("apiban-answers")
            os.posix_fallocate(self.handle, 0, _WORDS * 8)
            os.pwrite(self.handle, secrets.token_bytes(_KEY * 8), 0)
        else:
            self.handle = handle
        memory = mmap.mmap(self.handle, _WORDS * 8)
        self._words = memoryview(memory).cast("Q")
        self._key = memory[: _KEY * 8]

    def take(self, source: str) -> bool:
        """Take one answer for a source out of the budget; tell whether there was one.

        Raises:
            AddressError: the source is no address.

        """
        place = _FIRST + self._place(source)
        # Two workers that count at once would lose one of the counts; the kernel gives the lock
        # back when its holder is killed.
        fcntl.lockf(self.handle, fcntl.LOCK_EX, 8, 0)
        try:
            # The time is read here: one of before the wait for the lock could be of an earlier
            # second, and begin its count anew after a later one's.
            now = int(self._now())
            window = now // self.settings.window
            mine, all_ = self._count(place, window), self._count(_OVERALL, now)
            if mine >= self.settings.per_source or all_ >= self.settings.overall:
                return False
            self._words[place] = (window & _MOST) << 32 | (mine + 1)
            self._words[_OVERALL] = (now & _MOST) << 32 | (all_ + 1)
        finally:
            fcntl.lockf(self.handle, fcntl.LOCK_UN, 8, 0)
        return True

    def _count(self, place: int, window: int) -> int:
        """Give a word's count, which is of its own window alone."""
        word = self._words[place]
        return word & _MOST if word >> 32 == window & _MOST else 0

    def _place(self, source: str) -> int:
        """Find the place of an IPv4 address, or of an IPv6 network of 64 bits."""
        digest = hashlib.blake2b(pack(source)[:8], digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "big") % _SOURCES
