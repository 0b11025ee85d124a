"""Which user of this machine is at the other end of a loopback connection.

A reverse proxy on this machine makes everybody a client from loopback, and may leave no trace in a
request. But it runs as a user of its own, and the kernel tells whose a socket is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.requests import Request

__all__ = ["peer_uid"]

_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED: Final = "01"


def peer_uid(request: Request) -> int | None:
    """Give the user id behind a connection from this machine; None when the kernel tells none."""
    client, server = request.scope.get("client"), request.scope.get("server")
    if not client or not server or server[1] is None:
        return None
    ports = (f"{client[1]:04X}", f"{server[1]:04X}")
    found = {uid for table in _TABLES for uid in _uids(table, ports)}
    # Two sockets with the same ports, of two loopback addresses: no telling which.
    return found.pop() if len(found) == 1 else None


def _uids(table: Path, ports: tuple[str, str]) -> set[int]:
    """Give the owners of the sockets on this machine from one port to another (proc(5))."""
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return set()
    rows = (line.split() for line in lines)
    return {
        int(row[7])
        for row in rows
        if row[3] == _ESTABLISHED
        and (row[1].rpartition(":")[2], row[2].rpartition(":")[2]) == ports
    }
