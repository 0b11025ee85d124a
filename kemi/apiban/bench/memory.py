"""The memory of a node's processes, what they share counted once."""

from __future__ import annotations

import contextlib
import re
import statistics
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Memory", "Region", "descendants", "memory_of", "regions"]

_PROC: Final = Path("/proc")
# The line before the values of a mapping: addresses, rights, offset, device, inode, name.
_HEAD: Final = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(?P<name>.*)")
_OUR_LIST: Final = "/memfd:apiban"


@dataclass(frozen=True, slots=True)
class Region:
    """One mapping of one process, in KiB; ``pss`` has its share of what others map too."""

    name: str
    pss: int
    private: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What a node uses, in KiB.

    ``worker`` is the private memory of one SIP worker, the median of all; a list that it has mapped
    is none, even if no other worker has. ``total`` is that of all its processes with what they
    share once, with the lists that it holds, mapped or not, and the files in its runtime folder,
    which is a tmpfs.
    """

    worker: float
    total: float


def regions(smaps: str) -> Iterator[Region]:
    """Read ``/proc/PID/smaps``."""
    name, values = "", {"Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    seen = False
    for line in smaps.splitlines():
        if head := _HEAD.fullmatch(line):
            if seen:
                yield _region(name, values)
            name, seen = head["name"], True
            values = dict.fromkeys(values, 0)
        else:
            key, _, value = line.partition(":")
            if key in values:
                values[key] = int(value.split()[0])
    if seen:
        yield _region(name, values)


def _region(name: str, values: Mapping[str, int]) -> Region:
    return Region(name, values["Pss"], values["Private_Clean"] + values["Private_Dirty"])


def descendants(root: int) -> list[int]:
    """Give a process and all that it and its children started, of whatever session."""
    children: dict[int, list[int]] = {}
    for path in _PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def memory_of(root: int, workers: Collection[int], runtime: Path | None = None) -> Memory:
    """Measure the node whose main process is ``root``."""
    private: list[int] = []
    total = 0.0
    lists: dict[int, int] = {}
    for pid in descendants(root):
        smaps = (_PROC / str(pid) / "smaps").read_text(encoding="utf-8")
        found = [one for one in regions(smaps) if not _counted_apart(one.name, runtime)]
        total += sum(one.pss for one in found)
        lists |= _lists_held(pid)
        if pid in workers:
            private.append(sum(one.private for one in found))
    total += sum(lists.values()) / 1024
    if runtime is not None:
        total += sum(path.stat().st_blocks for path in runtime.iterdir()) / 2  # of 512 bytes
    return Memory(statistics.median(private), total)


def _counted_apart(name: str, runtime: Path | None) -> bool:
    in_runtime = runtime is not None and name.startswith(f"{runtime}/")
    return in_runtime or name.startswith(_OUR_LIST)


def _lists_held(pid: int) -> dict[int, int]:
    """Give the bytes of each list in memory that a process has open, by its inode."""
    held: dict[int, int] = {}
    for path in (_PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(OSError):
            if str(path.readlink()).startswith(_OUR_LIST):
                status = path.stat()
                held[status.st_ino] = status.st_blocks * 512
    return held
