"""What an operator names, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from apiban.address import Network

__all__ = ["Refused", "Wanted", "by_reason"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A network that an operator named; ``line`` is where in a list, 0 for the command line."""

    network: Network
    reason: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """What is not done, and why."""

    wanted: Wanted
    why: str


def by_reason(wanted: Iterable[Wanted]) -> Iterator[tuple[str, list[Network]]]:
    """Put networks of the same reason together; of one named twice the first reason counts."""
    reasons: dict[Network, str] = {}
    for one in wanted:
        reasons[one.network] = reasons.get(one.network) or one.reason
    groups: dict[str, list[Network]] = {}
    for network, reason in reasons.items():
        groups.setdefault(reason, []).append(network)
    yield from groups.items()
