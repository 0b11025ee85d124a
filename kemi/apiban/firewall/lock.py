"""One firewall client a runtime folder: ``runtime/firewall.lock``."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apiban.errors import FirewallError, StoreError
from apiban.store.file import make_shared

__all__ = ["alone", "lock_path", "who_runs"]


def lock_path(runtime: Path) -> Path:
    """Give where the lock is."""
    return runtime / "firewall.lock"


def who_runs(runtime: Path) -> int | None:
    """Give the process id of the client that has the lock; None when none has, 0 if unknown."""
    try:
        handle = _open(lock_path(runtime), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(handle, 20).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(handle)
    return None


@contextmanager
def alone(runtime: Path) -> Iterator[None]:
    """Be the one client within the block; the kernel lets go of the lock however it ends.

    Raises:
        FirewallError: another one is, or the folder cannot be written.

    """
    path = lock_path(runtime)
    try:
        # Root at the command line may be the first, and a service's user the next.
        make_shared(path)
        handle = _open(path, os.O_RDWR | os.O_CREAT)
    except StoreError as error:
        raise FirewallError(str(error)) from None
    except OSError as error:
        raise FirewallError(f"{path}: {error.strerror}; paths.runtime names the folder") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = who_runs(runtime)
            named = f", process {pid}" if pid else ""
            raise FirewallError(f"another firewall client runs here{named}: {path}") from None
        with contextlib.suppress(OSError):  # a full disk: who looks does not know which process
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _open(path: Path, flags: int) -> int:
    """Open the file itself: the group may write in the folder, and root is no friend of links."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o660)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "no file")
    return handle
