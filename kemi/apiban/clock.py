"""Time, as an argument: nothing in this package reads a clock of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

__all__ = ["Clock", "SystemClock", "slept"]


class Clock(Protocol):
    """What the package needs to know of time."""

    def now(self) -> float:
        """Give the wall clock, in seconds since 1970 (UTC). An operator may set it."""
        ...

    def uptime(self) -> float:
        """Give the seconds since the machine started, sleep included. Nobody can set it."""
        ...

    def boot(self) -> str:
        """Give a name of this start of the machine: two uptimes compare only within one boot."""
        ...


def slept() -> float:
    """Give the seconds that the machine was suspended since it started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class SystemClock:
    """The real one."""

    def __init__(self) -> None:
        try:
            text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        except OSError:
            text = "unknown"
        self._boot = text.strip()

    def now(self) -> float:
        """Give the wall clock, in seconds since 1970 (UTC)."""
        return time.time()

    def uptime(self) -> float:
        """Give CLOCK_BOOTTIME, in seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot(self) -> str:
        """Give the kernel's boot id."""
        return self._boot
