"""Files of shared memory: made anew at Kamailio's start, preallocated, never resized.

A page of such a file that is mapped can neither vanish nor fail. Where the file cannot be made,
memory without a name serves; nobody outside Kamailio can read it then.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from pathlib import Path
from typing import ClassVar, Final, Self

from apiban.errors import BoardError

__all__ = ["Shared"]

_AT_MAGIC: Final = 0
_AT_STARTED: Final = 3


class Shared:
    """A mapped file of 64-bit words; the first tells which layout it has, the fourth since when."""

    MAGIC: ClassVar[int]
    WORDS: ClassVar[int]
    WHAT: ClassVar[str]  # what it is to an operator, in the plural

    def __init__(self, handle: int, *, writable: bool = True) -> None:
        """Map the open file, which this object then owns.

        Raises:
            BoardError: it is not of this layout.

        """
        self._handle = handle
        try:
            access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            self._mapped = mmap.mmap(handle, self.WORDS * 8, prot=access)
        except (OSError, ValueError) as error:
            raise BoardError(f"{self.WHAT} cannot be mapped: {error}") from None
        self.words = memoryview(self._mapped).cast("Q")
        if self.words[_AT_MAGIC] != self.MAGIC:
            raise BoardError(f"{self.WHAT} are of another version: restart Kamailio")

    @classmethod
    def create(cls, path: Path, *, now: float) -> Self:
        """Make a new file at ``path``, in the place of an older one.

        Raises:
            BoardError: it cannot be made there.

        """
        scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            handle = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
            try:
                made = cls._begin(handle, now)
                scratch.replace(path)
            except BaseException:
                os.close(handle)
                raise
        except OSError as error:
            raise BoardError(f"{path}: cannot be made: {error.strerror}") from None
        finally:
            with contextlib.suppress(OSError):
                scratch.unlink()
        return made

    @classmethod
    def unnamed(cls, *, now: float) -> Self:
        """Make memory that only this process and its children can reach."""
        return cls._begin(os.memfd_create("apiban"), now)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map the file of a running node, for reading alone.

        Raises:
            BoardError: there is none.

        """
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise BoardError(f"{path}: cannot be opened: {error.strerror}") from None
        try:
            opened = cls(handle, writable=False)
        finally:
            os.close(handle)  # the mapping keeps what it needs
        opened._handle = -1
        return opened

    @classmethod
    def _begin(cls, handle: int, now: float) -> Self:
        os.posix_fallocate(handle, 0, cls.WORDS * 8)
        os.pwrite(handle, cls.MAGIC.to_bytes(8, sys.byteorder), 0)
        made = cls(handle)
        made.words[_AT_STARTED] = int(now)
        return made

    @property
    def handle(self) -> int:
        """The open file: a child process maps the same words through it; -1 after ``open``."""
        return self._handle

    @property
    def started(self) -> int:
        """When Kamailio started, in seconds since 1970."""
        return self.words[_AT_STARTED]
