"""What the kernel tells of processes and sockets, and what machine this is."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from apiban.errors import ApibanError

__all__ = ["BenchError", "Machine", "UdpSocket", "cpu_seconds", "pin", "udp_socket", "urgent"]
__all__ += ["core_seconds", "waited_seconds"]


class BenchError(ApibanError):
    """A measurement could not be made."""


def cpu_seconds(pids: Iterable[int]) -> float:
    """Give the CPU time of processes so far, by the scheduler's own accounting.

    It is exact once the process sleeps; while it runs, it lags by up to a tick.
    """
    return _schedstat(pids, 0)


def waited_seconds(pids: Iterable[int]) -> float:
    """Give how long processes, ready to run, have waited for a core so far."""
    return _schedstat(pids, 1)


def _schedstat(pids: Iterable[int], column: int) -> float:
    total = 0
    for pid in pids:
        total += int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[column])
    return total / 1e9


def core_seconds() -> tuple[float, float]:
    """Give the seconds of all cores since the machine began: in all, and stolen by neighbours."""
    first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    ticks = [int(word) for word in first.split()[1:9]]  # what follows is counted in these already
    return sum(ticks) / os.sysconf("SC_CLK_TCK"), ticks[7] / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class UdpSocket:
    """A UDP socket as the kernel sees it: bytes that wait in it, and packets that found no room."""

    waiting: int
    lost: int


def udp_socket(port: int) -> UdpSocket:
    """Give the socket of a local IPv4 port.

    Raises:
        BenchError: there is none.

    """
    for line in Path("/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        if int(words[1].rpartition(":")[2], 16) == port:
            return UdpSocket(int(words[4].partition(":")[2], 16), int(words[-1]))
    raise BenchError(f"no UDP socket has port {port}")


def pin(pids: Iterable[int], core: int) -> None:
    """Keep processes on one core, if there are several."""
    for pid in pids:
        os.sched_setaffinity(pid, {core} if Machine.cores() > core else {0})


def urgent(priority: int) -> bool:
    """Let this process run before all ordinary ones; give whether the system allows it."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))
    except PermissionError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Machine:
    """What the figures were measured on."""

    cpu: str
    cores_used: int
    kernel: str
    debian: str
    kamailio: str
    python: str
    sipp: str

    @staticmethod
    def cores() -> int:
        """Give how many cores this process may use."""
        return len(os.sched_getaffinity(os.getpid()))

    @classmethod
    def here(cls) -> Machine:
        """Describe this machine."""
        return cls(
            cpu=_field(Path("/proc/cpuinfo"), "model name", ":"),
            cores_used=cls.cores(),
            kernel=platform.release(),
            debian=_field(Path("/etc/os-release"), "PRETTY_NAME", "=").strip('"'),
            kamailio=_version("kamailio", "-v"),
            python=sys.version.split()[0],
            sipp=_version("sipp", "-v"),
        )


_UNKNOWN: Final = "unknown"


def _field(path: Path, name: str, separator: str) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        key, found, value = line.partition(separator)
        if found and key.strip() == name:
            return value.strip()
    return _UNKNOWN


def _version(*command: str) -> str:
    """Give the first line of what a program says of its version."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return _UNKNOWN
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return lines[0] if lines else _UNKNOWN
