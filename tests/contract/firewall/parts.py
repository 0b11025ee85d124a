"""Changes and rules, in few words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from apiban.address import parse_network
from apiban.firewall.elements import FOREVER, Block, Elements, Held
from apiban.firewall.rules import Rules

__all__ = ["LISTED", "LISTED6", "block", "blocks", "many", "rules", "same", "until"]

LISTED = "198.51.100.7"  # what most tests have banned
LISTED6 = "2001:db8:7::7"


def block(text: str) -> Block:
    """Read an address or a CIDR block."""
    network = parse_network(text)
    return network.family, network.first, network.last


def blocks(*texts: str) -> frozenset[Block]:
    """Read several."""
    return frozenset(map(block, texts))


def rules(**changes: Any) -> Rules:
    """Give rules that drop all at the hook "input", but for what is said otherwise."""
    values: dict[str, Any] = {
        "hooks": ("input",),
        "ports": (),
        "interfaces": (),
        "established": "drop",
        "drops": True,
    }
    return Rules(**values | changes)


def many(number: int, start: str = "11.0.0.0") -> Elements:
    """Give a long list of single addresses, banned for good."""
    _, first, _ = block(start)
    return {(4, address, address): FOREVER for address in range(first, first + 2 * number, 2)}


def same(
    held: Held | None,
    banned: Mapping[Block, int],
    allowed: frozenset[Block],
    *,
    since: float | None = None,
) -> bool:
    """Tell whether that is held, and intact; the ends are good to 2 s.

    ``since`` is the time that the changes were made by: what all of it took until now may make an
    end later, since the kernel counts from when it was told, and nearer, since it tells what is
    left after it was asked.
    """
    took = 0.0 if since is None else time.time() - since
    return (
        held is not None
        and held.intact
        and held.allowed == allowed
        and held.banned.keys() == banned.keys()
        and all(
            held.banned[one] == end
            if FOREVER in (end, held.banned[one])
            else abs(held.banned[one] - end) <= 2 + took
            for one, end in banned.items()
        )
    )


def until(holds: Callable[[], bool], patience: float = 10.0) -> bool:
    """Wait for a condition; tell whether it came true."""
    end = time.monotonic() + patience
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
