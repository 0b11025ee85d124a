"""Whether a process runs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["is_alive"]

_ENDED: Final = {b"Z", b"X"}
_THREADS: Final = 17  # counted from the state


def is_alive(pid: int) -> bool:
    """Tell whether a process runs, whoever's it is.

    One that has ended and that nobody waited for does not: in a container there may be nobody.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    # Its name stands in parentheses and may hold anything; its state follows, and how many threads
    # it has: the first may have ended while others still work. See proc_pid_stat(5).
    fields = stat.rpartition(b") ")[2].split()
    return fields[0] not in _ENDED or int(fields[_THREADS]) > 1
