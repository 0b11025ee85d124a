"""What the honeypot records, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Proof", "Sighting", "Unproven"]

Proof = Literal["nonce", "connection"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """Messages of a source that proved that it receives our answers.

    ``sequence`` is 0 until the queue has numbered it; ``at`` is the time of the last of ``count``
    messages, in seconds since 1970.
    """

    source: str
    transport: str
    method: str
    tool: str | None
    user_agent: str | None
    dialled: str | None
    users: tuple[str, ...]
    proof: Proof
    at: float
    count: int = 1
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Unproven:
    """Messages of a source that may be forged. ``number`` is 0 until the queue has numbered it."""

    source: str
    transport: str
    method: str
    tool: str | None
    user_agent: str | None
    first: float
    last: float
    count: int = 1
    number: int = 0
