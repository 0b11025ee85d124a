"""The elements of the kernel's sets, and the difference between two states of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from apiban.address import Family

__all__ = ["FOREVER", "Block", "Change", "Counter", "Elements", "Held", "Wanted"]

# (family, first, last): a CIDR block, both ends inside, as integers; one address when they are the
# same.
Block = tuple[Family, int, int]

# Each banned block, and when its ban ends: in seconds since 1970, FOREVER when it does not. Blocks
# never overlap.
Elements = dict[Block, int]

FOREVER: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the kernel should hold: the banned, and the allowed, which goes before it."""

    banned: Elements
    allowed: frozenset[Block] = frozenset()


@dataclass(frozen=True, slots=True)
class Held:
    """What the kernel holds. ``intact`` is False when a chain, a rule or a set is another one.

    A ban's end is known to a few seconds: the kernel tells what is left of it.
    """

    banned: Elements
    allowed: frozenset[Block]
    intact: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What leads from what is held to what is wanted.

    ``add`` and ``extend`` give the ends of bans; those of ``extend`` are held already, with another
    end, or were until a moment ago. ``rebuild`` tells that rules and sets are made anew, and that
    ``add`` and ``allow`` are all that they shall hold; it is the same transaction, so there is no
    instant without them.
    """

    add: Elements = field(default_factory=dict)
    extend: Elements = field(default_factory=dict)
    remove: frozenset[Block] = frozenset()
    allow: frozenset[Block] = frozenset()
    disallow: frozenset[Block] = frozenset()
    rebuild: bool = False

    def __bool__(self) -> bool:
        return bool(
            self.rebuild or self.add or self.extend or self.remove or self.allow or self.disallow
        )


@dataclass(frozen=True, slots=True)
class Counter:
    """What one set met: packets and bytes since the rules were made, or since a restart."""

    packets: int
    bytes: int
