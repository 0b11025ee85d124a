"""What goes into the store and comes out of it. All times are in seconds since 1970."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from apiban.address import Network
from apiban.settings.model import Mode

__all__ = [
    "DETECTOR",
    "FEED_SOURCE",
    "LOCAL",
    "OPERATOR",
    "UNBAN",
    "Allowed",
    "Entry",
    "FeedState",
    "ModeOverride",
    "SentRequest",
    "Task",
    "TaskName",
]

# Who listed an entry: the APIBAN feed, the operator, or the detector in this node's Kamailio.
FEED_SOURCE: Final = "apiban"
LOCAL: Final = "local"
DETECTOR: Final = "detector"

# Who allowed a network: the operator, or ``apiban unban`` of what a feed lists. What Kamailio
# itself trusts has the name of its module ("dispatcher", "permissions").
OPERATOR: Final = "operator"
UNBAN: Final = "unban"

# What the command line asks of the process that syncs: to ask the feed now, to begin a full pass
# now, to remove what a held pass would.
TaskName = Literal["sync", "full-pass", "accept-hold"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A banned network, as one source lists it."""

    network: Network
    source: str
    reason: str
    first_listed: float
    last_listed: float
    expires: float

    def ends(self, grace: float) -> int:
        """Give when its ban ends in a list, in whole seconds; a feed's lasts ``grace`` longer.

        It may be sooner: when the feed gives a complete answer that does not renew it.
        """
        return math.ceil(self.expires + (grace if self.source == FEED_SOURCE else 0.0))


@dataclass(frozen=True, slots=True)
class Allowed:
    """A network that is saved from every ban; ``expires`` is None when it is for good."""

    network: Network
    source: str
    reason: str
    added: float
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class ModeOverride:
    """The operator's mode, which goes before that of the settings; None is for good."""

    mode: Mode
    added: float
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """Something that the process that syncs shall do; ``taken`` is None until it began."""

    number: int
    name: str
    at: float
    taken: float | None = None


@dataclass(frozen=True, slots=True)
class FeedState:
    """Where the sync of one feed stands.

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
