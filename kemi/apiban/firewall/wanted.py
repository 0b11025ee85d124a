"""What the kernel should hold, of a list and of whom nobody may drop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from apiban.address import Family, Network
from apiban.firewall.elements import Block, Elements, Wanted
from apiban.snapshot import Snapshot

__all__ = ["allowed_blocks", "blocks_of", "wanted_of"]

# Blocks of so many addresses at most are cut into single ones: in the kernel these live in hash
# sets, of which one can be added or removed in no time, and a block costs the whole of its set.
_CUT: Final = 8


def wanted_of(snapshot: Snapshot, allowed: Iterable[Network], *, now: float) -> Wanted:
    """Give all of a list whose bans have not ended, and the allowed, which may overlap."""
    return Wanted(_banned(snapshot, now), allowed_blocks(allowed))


def _banned(snapshot: Snapshot, now: float) -> Elements:
    banned: Elements = {}
    families: dict[int, Family] = {4: 4, 6: 6}
    for number, (first, last, expires, _) in snapshot.ranges():
        if expires <= now:
            continue
        family = families[number]
        if first == last:
            banned[family, first, last] = expires
        else:
            for block in blocks_of(family, first, last):
                banned[block] = expires
    return banned


def allowed_blocks(networks: Iterable[Network]) -> frozenset[Block]:
    """Give the fewest blocks of all these networks that never overlap."""
    blocks: set[Block] = set()
    family, first, last = None, 0, -1
    for one in sorted(networks):
        if family == one.family and one.first <= last + 1:
            last = max(last, one.last)
            continue
        if family is not None:
            blocks.update(blocks_of(family, first, last))
        family, first, last = one.family, one.first, one.last
    if family is not None:
        blocks.update(blocks_of(family, first, last))
    return frozenset(blocks)


def blocks_of(family: Family, first: int, last: int) -> Iterator[Block]:
    """Cut a range into CIDR blocks, and the small ones of these into single addresses."""
    while first <= last:
        # As large as its first address is aligned, and as the rest of the range has room for.
        size = 1 << (last - first + 1).bit_length() - 1
        if first:
            size = min(size, first & -first)
        if size <= _CUT:
            for address in range(first, first + size):
                yield family, address, address
        else:
            yield family, first, first + size - 1
        first += size
