"""What a honeypot reports, and what it is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from apiban.address import Network

__all__ = ["Receipt", "Report", "Sighting", "Unproven"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """A proven source that probed: ``count`` messages alike, the last one ``at``."""

    sequence: int
    at: float
    source: Network
    transport: str
    method: str
    proof: str
    count: int = 1
    tool: str | None = None
    user_agent: str | None = None
    dialled: str | None = None
    users: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unproven:
    """A source that proved nothing, and may be forged."""

    source: Network
    method: str
    first: float
    last: float
    count: int = 1
    tool: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One batch of a honeypot's queue; ``refused`` are numbers of what could not be read."""

    queue: str
    sightings: Sequence[Sighting]
    unproven: Sequence[Unproven] = ()
    unproven_not_kept: int = 0
    refused: Sequence[tuple[int | None, str]] = ()


@dataclass(slots=True)
class Receipt:
    """What became of a report. All of it is settled."""

    accepted: int = 0
    repeated: int = 0
    refused: list[tuple[int | None, str]] = field(default_factory=list)
