"""A network for a process of tests of its own: loopback alone; and the way out of it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_CLONE_NEWNET: Final = 0x40000000
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_IFREQ: Final = struct.Struct("16sh22x")


_outer: Final[list[int]] = []  # the network that this process came from


@contextmanager
def outer_network() -> Iterator[None]:
    """Have what this thread starts in the host's network: there are the mirrors of packages."""
    if not _outer:
        yield
        return
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", _outer[0], _CLONE_NEWNET)
        yield
    finally:
        _call("setns", own, _CLONE_NEWNET)
        os.close(own)


def _call(name: str, *numbers: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*numbers) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def enter_own_network() -> None:
    """Move this thread, and all that it starts from now on, into a new network with loopback up.

    Raises:
        OSError: it needs root, and a kernel that allows namespaces.

    """
    _outer.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    _call("unshare", _CLONE_NEWNET)
    with socket.socket(type=socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
        flags = _IFREQ.unpack(answer)[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))
