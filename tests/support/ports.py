"""Ports for servers that tests start: none is given twice, and none the kernel gives to others."""

from __future__ import annotations

import itertools
import os
import socket
from contextlib import suppress
from typing import Final

# Below the range that the kernel takes for connections (and for a bind to port 0): what is free
# here when a test asks is still free when its server binds.
_FIRST: Final = 10000
_COUNT: Final = 20000
# Another run of the tests on the same network begins elsewhere.
_numbers = itertools.count(os.getpid() * 97)


def free_port() -> int:
    """Give a port that nobody has, at any address, for UDP and TCP alike."""
    for number in itertools.islice(_numbers, _COUNT):
        port = _FIRST + number % _COUNT
        with (
            socket.socket() as tcp,
            socket.socket(type=socket.SOCK_DGRAM) as udp,
            suppress(OSError),
        ):
            for one in (tcp, udp):
                one.bind(("0.0.0.0", port))
            return port
    raise AssertionError("every port is taken")
