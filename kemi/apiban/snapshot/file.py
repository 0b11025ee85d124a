"""Snapshot files: written whole, replaced by rename, never changed in place."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from pathlib import Path

from apiban.errors import SnapshotError
from apiban.snapshot.format import Snapshot

__all__ = [
    "hold_snapshot",
    "load_snapshot",
    "map_snapshot",
    "share_snapshot",
    "write_snapshot",
]


def write_snapshot(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``: after a crash at any moment the old or the new file is whole.

    Raises:
        SnapshotError: it could not be written; what was at ``path`` is untouched.

    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with scratch.open("wb") as file:
            os.fchmod(file.fileno(), 0o440)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _verify(scratch)
        scratch.replace(path)
        with contextlib.suppress(OSError):  # it is in place, and will be on the disk soon
            _sync_folder(path.parent)
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


def hold_snapshot(content: bytes) -> int:
    """Put ``content`` into memory that nobody can change or cut short; give its open file.

    Raises:
        OSError: there is no memory for it.

    """
    handle = os.memfd_create("apiban-list", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(handle, "wb", closefd=False) as file:
            file.write(content)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(handle)
        raise
    return handle


def map_snapshot(path: Path) -> Snapshot:
    """Map a file for reading, checking its header and size alone.

    Raises:
        SnapshotError: it is missing, or no snapshot.

    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise SnapshotError(f"{path}: cannot be mapped: {_why(error)}") from None
    return Snapshot(memoryview(mapped))


def load_snapshot(path: Path) -> Snapshot:
    """Copy a file into memory that processes forked later share, and verify all of it.

    A mapped file that somebody cuts short in place kills the process that reads it; the copy has
    no such name on disk. So the durable file is only ever read, never kept mapped.

    Raises:
        SnapshotError: it is missing, damaged, or of an unknown format.

    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be read: {_why(error)}") from None
    snapshot = share_snapshot(content)
    snapshot.verify()
    return snapshot


def share_snapshot(content: bytes) -> Snapshot:
    """Put a snapshot's bytes into memory that processes forked later share.

    Raises:
        SnapshotError: they are no snapshot.

    """
    shared = mmap.mmap(-1, max(len(content), 1))
    shared.write(content)
    return Snapshot(memoryview(shared).toreadonly()[: len(content)])


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def _verify(path: Path) -> None:
    Snapshot(memoryview(path.read_bytes())).verify()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
