"""Host names looked up without making the tick wait."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from apiban.address import Network, parse_address
from apiban.errors import AddressError

__all__ = ["Names", "ThreadNames", "addresses_of"]

Found = Mapping[str, frozenset[Network]]


class Names(Protocol):
    """Looks names up; what it found is there at a later tick, or at once."""

    def look_up(self, names: Iterable[str]) -> bool:
        """Begin; False while another look-up is under way."""
        ...

    def found(self) -> Found | None:
        """Give what was found, once; None while it is not there. A name without answer is empty."""
        ...


def addresses_of(name: str) -> frozenset[Network]:
    """Ask the system's resolver for a host's addresses of both families, and wait."""
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
        return frozenset(parse_address(str(one[4][0]).partition("%")[0]) for one in answers)
    except (OSError, UnicodeError, AddressError):
        return frozenset()


class ThreadNames:
    """Asks in a thread, which touches neither the store nor Kamailio."""

    def __init__(self, ask: Callable[[str], frozenset[Network]] = addresses_of) -> None:
        self._ask = ask
        self._found: Found = {}
        self._thread: threading.Thread | None = None

    def look_up(self, names: Iterable[str]) -> bool:
        """Begin in a new thread."""
        if self._thread is not None:
            return False
        wanted = tuple(names)

        def run() -> None:
            self._found = {name: self._ask(name) for name in wanted}

        self._thread = threading.Thread(target=run, name="names", daemon=True)
        self._thread.start()
        return True

    def found(self) -> Found | None:
        """Give what was found when the thread has it."""
        if self._thread is None or self._thread.is_alive():
            return None
        found, self._found, self._thread = self._found, {}, None
        return found
