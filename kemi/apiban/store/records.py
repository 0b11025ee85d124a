"""What goes into the store and comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["FEED_SOURCE", "FeedState", "SentRequest"]

# The name of the entries that came from the APIBAN feed.
FEED_SOURCE: Final = "apiban"


@dataclass(frozen=True, slots=True)
class FeedState:
    """Where the sync of one feed stands. Times are in seconds since 1970.

    ``cursor`` asks for what is new; None until the first full pass came to the list's end.
    ``complete_at`` is when the feed last said that there is nothing more.
    ``pass_cursor`` is the full pass's own; ``held`` counts the
    complete passes in a row that would have removed too much, the first at ``held_since``.
    """

    identity: str
    cursor: str | None = None
    complete_at: float | None = None
    pass_number: int = 0
    pass_cursor: str | None = None
    pass_started: float | None = None
    pass_ended: float | None = None
    held: int = 0
    held_since: float | None = None


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A request that counts against the feed's rate limit.

    The feed counted it at ``until`` at the latest, in uptime seconds of the boot named.
    """

    boot: str
    until: float
