"""A clock that only a test moves."""

from __future__ import annotations


class ManualClock:
    """Wall clock and uptime move together by ``tick``; ``set_wall`` moves the wall clock alone."""

    def __init__(self, now: float = 1_800_000_000.0, uptime: float = 5000.0) -> None:
        self._now = now
        self._uptime = uptime
        self._boot = "boot-1"

    def now(self) -> float:
        """Give the wall clock."""
        return self._now

    def uptime(self) -> float:
        """Give the uptime."""
        return self._uptime

    def boot(self) -> str:
        """Name the boot."""
        return self._boot

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        self._uptime += seconds

    def set_wall(self, now: float) -> None:
        """Set the wall clock, as an operator or NTP does."""
        self._now = now

    def reboot(self, uptime: float = 10.0) -> None:
        """Start the machine anew."""
        self._boot += "'"
        self._uptime = uptime
