"""What operators did, and what was done for them: who, when, what and why."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from apiban.feed.server.database.schema import journal

__all__ = ["Action", "actions", "note"]


@dataclass(frozen=True, slots=True)
class Action:
    """A line of the journal; ``at`` in seconds since 1970."""

    at: float
    who: str
    action: str
    what: str
    reason: str


def note(  # noqa: PLR0913 - a line has as many parts
    connection: Connection, *, at: float, who: str, action: str, what: str, reason: str = ""
) -> None:
    """Write a line, in the transaction of what it tells of."""
    row = {"at": at, "who": who[:64], "action": action, "what": what[:254], "reason": reason[:200]}
    connection.execute(insert(journal), row)


def actions(connection: Connection, limit: int = 100) -> list[Action]:
    """Give the latest lines, the newest first."""
    columns = [journal.c[name] for name in Action.__slots__]
    rows = connection.execute(select(*columns).order_by(journal.c.id.desc()).limit(limit))
    return [Action(*row) for row in rows]
