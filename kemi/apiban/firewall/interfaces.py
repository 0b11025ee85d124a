"""The interfaces that the rules are bound to."""

from __future__ import annotations

import socket
from collections.abc import Iterable

__all__ = ["absent"]


def absent(names: Iterable[str]) -> tuple[str, ...]:
    """Give those of these interfaces that are not there now: rules bound to them meet no packet.

    One may come later, as a tunnel's does; or its name has a slip.
    """
    there = {name for _, name in socket.if_nameindex()}
    return tuple(name for name in names if name not in there)
