"""What /proc tells of Kamailio's processes; None where that is not ours to see."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

__all__ = [
    "User",
    "capabilities",
    "children",
    "command_line",
    "loaded_modules",
    "lock_holder",
    "parent",
    "same_network",
]

_PROC: Final = Path("/proc")
_SUPERUSER: Final = 0


@dataclass(frozen=True, slots=True)
class User:
    """A user as the kernel sees it; ``groups`` holds the primary one too."""

    uid: int
    groups: frozenset[int]

    @classmethod
    def of_process(cls, pid: int, proc: Path = _PROC) -> Self | None:
        """Give whose process it is; None when it is gone."""
        fields = _status(pid, proc)
        if not {"Uid", "Gid", "Groups"} <= fields.keys():
            return None
        groups = [fields["Gid"].split()[1], *fields["Groups"].split()]
        return cls(int(fields["Uid"].split()[1]), frozenset(map(int, groups)))

    def may(self, status: os.stat_result, wanted: int) -> bool:
        """Tell whether it has the rights ``wanted`` (4 read, 2 write, 1 search) on a file."""
        if self.uid == _SUPERUSER:
            return True
        if self.uid == status.st_uid:
            rights = status.st_mode >> 6
        elif status.st_gid in self.groups:
            rights = status.st_mode >> 3
        else:
            rights = status.st_mode
        return rights & wanted == wanted


def parent(pid: int, proc: Path = _PROC) -> int | None:
    """Give a process's parent (a SIP worker's is Kamailio's main process); None: it is gone."""
    text = _status(pid, proc).get("PPid")
    return int(text) if text else None


def children(pid: int, proc: Path = _PROC) -> list[int]:
    """Give the processes whose parent this is."""
    numbers = (int(path.name) for path in proc.glob("[0-9]*"))
    return sorted(number for number in numbers if parent(number, proc) == pid)


def command_line(pid: int, proc: Path = _PROC) -> list[str]:
    """Give the words that a process was started with; none when it is gone."""
    try:
        raw = (proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return [word.decode("utf-8", "replace") for word in raw.split(b"\0") if word]


def loaded_modules(pid: int, proc: Path = _PROC) -> frozenset[str] | None:
    """Give the names of the modules that a Kamailio has loaded."""
    try:
        maps = (proc / str(pid) / "maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return frozenset(re.findall(r"/modules/([A-Za-z0-9_]+)\.so$", maps, re.MULTILINE))


def capabilities(pid: int, proc: Path = _PROC) -> int | None:
    """Give the capabilities in effect, a bit each; None when it is gone."""
    text = _status(pid, proc).get("CapEff")
    return int(text, 16) if text else None


def same_network(pid: int, proc: Path = _PROC) -> bool | None:
    """Tell whether a process is in our network namespace."""
    try:
        return (proc / str(pid) / "ns" / "net").readlink() == (
            proc / "self" / "ns" / "net"
        ).readlink()
    except OSError:
        return None


def lock_holder(status: os.stat_result, table: str) -> int | None:
    """Find who holds the lock on a file in the text of /proc/locks; 0 when it cannot be seen."""
    holders: dict[str, int] = {}
    for line in table.splitlines():
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5].endswith(f":{status.st_ino}"):
            holders.setdefault(words[5], max(int(words[4]), 0))
    # On some file systems the kernel's number of the disk is another one than stat's.
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return holders.get(device, next(iter(holders.values()), None))


def _status(pid: int, proc: Path) -> dict[str, str]:
    try:
        text = (proc / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}
