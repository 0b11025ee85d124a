"""The curator's round: what is over goes, what the operator changed takes effect.

Each step is a transaction of its own and of bounded size, so that reports and clients wait for
none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, func, select

from apiban.feed.server import numbers
from apiban.feed.server.claims import Claims
from apiban.feed.server.database import Database
from apiban.feed.server.database.schema import listing
from apiban.feed.server.evidence import Evidence
from apiban.feed.server.never import NeverList
from apiban.log import Log

__all__ = ["Curator"]

_AT_ONCE: Final = 2000
_STATISTICS_FOR: Final = 90 * 86400.0


class Curator:
    """Keeps one feed's list tidy; ``round()`` is due once a minute or so."""

    def __init__(  # noqa: PLR0913 - the parts that it works on
        self,
        *,
        database: Database,
        claims: Claims,
        evidence: Evidence,
        never: NeverList,
        now: Callable[[], float],
        log: Log,
    ) -> None:
        self._database = database
        self._claims = claims
        self._evidence = evidence
        self._never = never
        self._now = now
        self._log = log
        # The file may be another one than when the feed ran last.
        self._never_applied = False

    def round(self) -> None:
        """Do all that is due.

        Raises:
            StoreError: the rest is done in the next round.

        """
        if self._never.refresh():
            self._never_applied = False
        if not self._never_applied:
            # The look through the whole list takes a while: nobody waits for it.
            with self._database.read() as connection:
                wrong = self._claims.never_listed(connection)
            with self._database.write() as connection:
                gone = self._claims.drop(connection, wrong)
            self._never_applied = True
            if gone:
                self._log("never-list-applied", delisted=gone)
        self._expire()
        self._relist()
        with self._database.write() as connection:
            self._evidence.forget(connection)
            numbers.forget(connection, self._now() - _STATISTICS_FOR)
            self._count_active(connection)

    def _expire(self) -> None:
        gone = _AT_ONCE
        while gone >= _AT_ONCE:
            with self._database.write() as connection:
                gone = self._claims.expire(connection, limit=_AT_ONCE)

    def _relist(self) -> None:
        moved = _AT_ONCE
        while moved >= _AT_ONCE:
            with self._database.write() as connection:
                moved = self._claims.relist(connection, limit=_AT_ONCE)

    def _count_active(self, connection: Connection) -> None:
        query = select(listing.c.dataset, func.count()).group_by(listing.c.dataset)
        counts = {row[0]: row[1] for row in connection.execute(query)}
        numbers.put(
            connection,
            self._now(),
            {("active", dataset): counts.get(dataset, 0) for dataset in ("sip", "http")},
        )
