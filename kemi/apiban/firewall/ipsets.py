"""The sets of the ipset backend: their forms, their elements as text, and how many there should be.

Single addresses are in ``apiban4`` and ``apiban6`` (hash:ip), ranges in ``apiban4-net`` and
``apiban6-net``, the allowed in ``apiban4-allow`` and ``apiban6-allow`` (hash:net).
"""

from __future__ import annotations

import math
import re
import socket
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from apiban.address import Family
from apiban.errors import FirewallError
from apiban.firewall.elements import FOREVER, Block, Change, Elements

__all__ = [
    "LONGEST",
    "NAMES",
    "SETS",
    "KernelSet",
    "Tally",
    "build",
    "discards",
    "entries",
    "parse",
    "steps",
    "swaps",
    "timeout",
    "whole",
]

# The longest time in seconds that the kernel takes for an element.
LONGEST: Final = 2147483
# No set grows out of this, and it costs no memory.
_MOST: Final = 1 << 24
_AF: Final[dict[Family, int]] = {4: socket.AF_INET, 6: socket.AF_INET6}
_BITS: Final[dict[Family, int]] = {4: 32, 6: 128}
_ROOM: Final = re.compile(r" maxelem (\d+) timeout (\d+)\b")
# The kernel's clock and ours end a ban within so many seconds of each other.
_SLACK: Final = 3.0

Kind = Literal["allow", "nets", "hosts"]
_ENDINGS: Final[dict[Kind, str]] = {"allow": "-allow", "nets": "-net", "hosts": ""}


@dataclass(frozen=True, slots=True)
class KernelSet:
    """One set as it should be."""

    family: Family
    kind: Kind

    @property
    def name(self) -> str:
        """Its name, at most 31 characters long with what is put behind it."""
        return f"apiban{self.family}{_ENDINGS[self.kind]}"

    @property
    def type(self) -> str:
        """Its type and family: sets can only be swapped when these are the same."""
        of = "hash:ip" if self.kind == "hosts" else "hash:net"
        return f"{of} family {'inet' if self.family == 4 else 'inet6'}"

    def create(self, name: str) -> str:
        """Give the line that makes one like this."""
        return f"create {name} {self.type} maxelem {_MOST} timeout 0"

    def is_swappable(self, header: str) -> bool:
        """Tell whether a set's header, as ``ipset save`` writes it, is of the same type."""
        return f" {self.type} " in f" {header} "

    def is_like(self, header: str) -> bool:
        """Tell whether it is the header of a set just like this."""
        room = _ROOM.search(header)
        return self.is_swappable(header) and room is not None and room.groups() == (f"{_MOST}", "0")


_KINDS: Final[tuple[Kind, ...]] = ("allow", "nets", "hosts")
_FAMILIES: Final[tuple[Family, ...]] = (4, 6)
_ALLOWED, _NETS, _HOSTS = (
    {family: KernelSet(family, kind).name for family in _FAMILIES} for kind in _KINDS
)
# The allowed come first: made and swapped in this order, no allowed source is ever dropped.
SETS: Final = tuple(KernelSet(family, kind) for kind in _KINDS for family in _FAMILIES)
NAMES: Final = {one.name: one for one in SETS}


def entries(blocks: Iterable[Block], *, allowed: bool = False) -> Iterator[tuple[str, str, Block]]:
    """Give the set, the text and the block of each entry that banned, or allowed, blocks need.

    The kernel takes no block of all addresses, but two halves of it, and the address of zeros only
    as a network.

    Raises:
        FirewallError: one is no CIDR block.

    """
    for block in blocks:
        family, first, last = block
        if first == last and first and not allowed:
            yield _HOSTS[family], _text(family, first), block
            continue
        name = _ALLOWED[family] if allowed else _NETS[family]
        size = last - first + 1
        prefix = _BITS[family] - size.bit_length() + 1
        if size < 1 or size & (size - 1) or first & (size - 1) or prefix < 0:
            raise FirewallError(f"ipset: no CIDR block: {first:x}-{last:x}")
        if prefix:
            yield name, f"{_text(family, first)}/{prefix}", block
        else:
            yield name, f"{_text(family, 0)}/1", block
            yield name, f"{_text(family, 1 << (_BITS[family] - 1))}/1", block


def timeout(end: int, now: float) -> int:
    """Give the timeout for an end: 0 for good, below 0 when it is over."""
    if end == FOREVER:
        return 0
    return min(math.ceil(end - now), LONGEST) if now < end else -1


def parse(saved: str, now: float) -> tuple[dict[str, str], dict[str, Elements]]:
    """Read what ``ipset save`` says of our sets: their headers and their elements, by name.

    A set with an entry that we would not have made has no header: all is made anew then.
    """
    headers: dict[str, str] = {}
    held: dict[str, Elements] = {one.name: {} for one in SETS}
    for line in saved.splitlines():
        words = line.split(" ")
        if words[0] == "create":
            headers[words[1]] = line
            continue
        name = words[1]
        try:
            block, seconds = _entry(words)
        except (OSError, ValueError):
            headers.pop(name, None)
            continue
        if name in _NETS.values() and block[1] == block[2] != 0:
            headers.pop(name, None)
        held[name][block] = math.ceil(now) + seconds if seconds else FOREVER
    return headers, held


def _entry(words: list[str]) -> tuple[Block, int]:
    """Read an entry and what is left of its time: ``add NAME ADDRESS[/PREFIX] timeout SECONDS``."""
    _, _, text, _, left = words
    family: Family = 6 if ":" in text else 4
    address, _, prefix = text.partition("/")
    first = int.from_bytes(socket.inet_pton(_AF[family], address), "big")
    size = 1 << (_BITS[family] - int(prefix)) if prefix else 1
    return (family, first, first + size - 1), int(left)


def whole(elements: Elements) -> Elements:
    """Put halves of all addresses together: see ``entries``."""
    for family, bits in _BITS.items():
        half = 1 << (bits - 1)
        low, high = (family, 0, half - 1), (family, half, 2 * half - 1)
        if low in elements and high in elements:
            end = min(elements.pop(low), elements.pop(high))
            elements[family, 0, 2 * half - 1] = end
    return elements


def build(
    change: Change, names: tuple[str, ...], scratch: tuple[str, ...], new: str, now: float
) -> Iterator[str]:
    """Make the new sets beside those that are in use, and empty ones where none are."""
    yield from (f"destroy {name}" for name in scratch)
    for one in SETS:
        yield one.create(f"{one.name}{new}")
        if one.name not in names:
            yield one.create(one.name)
    for name, text, _ in entries(change.allow, allowed=True):
        yield f"add {name}{new} {text}"
    for name, text, block in entries(change.add):
        left = timeout(change.add[block], now)
        if left >= 0:
            yield f"add {name}{new} {text} timeout {left}"


def swaps(new: str) -> Iterator[str]:
    """Put the new sets in the place of the old ones."""
    return (f"swap {one.name}{new} {one.name}" for one in SETS)


def discards(new: str) -> Iterator[str]:
    """Take out what was swapped away."""
    return (f"destroy {one.name}{new}" for one in SETS)


def steps(change: Change, scratch: tuple[str, ...], now: float) -> Iterator[str]:
    """Give the lines of a small change. Adding what is there already gives it another end."""
    yield from (f"destroy {name}" for name in scratch)
    fresh = set()
    for name, text, _ in entries(change.allow, allowed=True):
        fresh.add((name, text))
        yield f"add {name} {text}"
    ends = change.add | change.extend
    for name, text, block in entries(ends):
        left = timeout(ends[block], now)
        if left >= 0:
            fresh.add((name, text))
            yield f"add {name} {text} timeout {left}"
    for name, text, _ in (*entries(change.remove), *entries(change.disallow, allowed=True)):
        if (name, text) not in fresh:
            yield f"del {name} {text}"


class Tally:
    """How many entries each set has when nobody else changes it: those that may be over aside.

    Times are those of a clock that nobody sets.
    """

    def __init__(self, held: Mapping[str, Iterable[float]]) -> None:
        """Begin with the ends of all entries of each set."""
        self._ends = {name: sorted(ends) for name, ends in held.items()}
        self._sizes = {name: len(ends) for name, ends in self._ends.items()}

    def changed(self, name: str, *, added: Iterable[float], removed: int) -> None:
        """Take in what was put into a set and out of it."""
        ends = self._ends.setdefault(name, [])
        before = len(ends)
        ends.extend(added)
        self._sizes[name] = self._sizes.get(name, 0) + len(ends) - before - removed
        ends.sort()

    def fits(self, name: str, entries: int, now: float) -> bool:
        """Tell whether a set may have so many entries by now."""
        size = self._sizes.get(name, 0)
        over = bisect(self._ends.get(name, []), now + _SLACK)
        return size - over <= entries <= size


def _text(family: Family, address: int) -> str:
    return socket.inet_ntop(_AF[family], address.to_bytes(_BITS[family] // 8, "big"))
