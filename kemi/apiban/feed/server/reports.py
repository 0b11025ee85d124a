"""What honeypots report: each sighting is checked, kept as evidence, and counted once.

A report is settled in one transaction, and its answer is the acknowledgement: what was accepted
survives any crash. A honeypot numbers its sightings; a report that comes again, since its answer
got lost, is recognised by these numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, delete, select

from apiban.feed.server import numbers
from apiban.feed.server.claims import FULL, HONEYPOT, Claims, Wanted
from apiban.feed.server.database import Database
from apiban.feed.server.database.connect import upsert
from apiban.feed.server.database.schema import honeypot
from apiban.feed.server.evidence import Evidence, known_method
from apiban.feed.server.report import Receipt, Report, Sighting
from apiban.feed.server.settings import CurationSettings

__all__ = ["Reports"]

# A honeypot's clock may be ahead by that much; its sightings then count as of now.
_AHEAD: Final = 300.0
_QUEUES_KEPT: Final = 20


class Reports:
    """Takes reports of the honeypots of one feed."""

    def __init__(
        self,
        database: Database,
        claims: Claims,
        evidence: Evidence,
        settings: CurationSettings,
        now: Callable[[], float],
    ) -> None:
        self._database = database
        self._claims = claims
        self._evidence = evidence
        self._settings = settings
        self._now = now

    def take(self, name: str, report: Report) -> Receipt:
        """Take a report of the honeypot with this name.

        Raises:
            StoreError: nothing of it was taken.

        """
        receipt = Receipt(refused=list(report.refused))
        with self._database.write() as connection:
            last = self._last_sequence(connection, name, report.queue)
            by_number = {one.sequence: one for one in report.sightings if one.sequence > last}
            fresh = list(by_number.values())
            receipt.repeated = len(report.sightings) - len(fresh)
            good = [one for one in fresh if self._is_good(one, receipt)]
            receipt.accepted = len(good)
            if good:
                instead = self._claims.gathered(connection, (one.source for one in good))
                good = [replace(one, source=instead.get(one.source, one.source)) for one in good]
                enough = self._evidence.enough(connection, name, good)
                full = self._list(connection, enough, name, receipt)
                self._evidence.keep(connection, name, [one for one in good if one not in full])
            self._evidence.keep_unproven(connection, name, report.unproven)
            highest = max((one.sequence for one in fresh), default=last)
            self._note_report(connection, name, report.queue, highest, len(good))
            self._count(connection, name, good, report)
        return receipt

    # Inside ------------------------------------------------------------------------------------

    def _last_sequence(self, connection: Connection, name: str, queue: str) -> int:
        query = select(honeypot.c.sequence).where(
            honeypot.c.name == name, honeypot.c.queue == queue
        )
        return connection.execute(query).scalar_one_or_none() or 0

    def _is_good(self, one: Sighting, receipt: Receipt) -> bool:
        now = self._now()
        reason = self._claims.refusal(one.source)
        if one.at < now - self._settings.oldest:
            reason = f"older than {self._settings.oldest:.0f} s"
        elif one.at > now + _AHEAD:
            reason = "from the future: the honeypot's clock is wrong"
        if reason:
            receipt.refused.append((one.sequence, reason))
        return not reason

    def _list(
        self, connection: Connection, sightings: Sequence[Sighting], name: str, receipt: Receipt
    ) -> set[Sighting]:
        """List the sources; give the sightings for which there was no room."""
        now = self._now()
        outcome = self._claims.make(
            connection,
            HONEYPOT,
            (
                Wanted(
                    one.source,
                    min(one.at, now),
                    min(one.at, now) + self._settings.active_for,
                    f"{one.method} by {one.tool or 'an unknown tool'}, seen by {name}",
                )
                for one in sightings
            ),
        )
        for one in sightings:
            if str(one.source) in outcome.refused:
                receipt.refused.append((one.sequence, outcome.refused[str(one.source)]))
                receipt.accepted -= 1
        return {one for one in sightings if outcome.refused.get(str(one.source)) == FULL}

    def _note_report(
        self, connection: Connection, name: str, queue: str, sequence: int, accepted: int
    ) -> None:
        entry = upsert(connection, honeypot)
        given = entry.excluded
        connection.execute(
            entry.on_conflict_do_update(
                index_elements=["name", "queue"],
                set_={
                    "sequence": given.sequence,
                    "last_report": given.last_report,
                    "sightings": honeypot.c.sightings + given.sightings,
                },
            ),
            {
                "name": name,
                "queue": queue,
                "sequence": sequence,
                "last_report": self._now(),
                "sightings": accepted,
            },
        )
        newest = (
            select(honeypot.c.queue)
            .where(honeypot.c.name == name)
            .order_by(honeypot.c.last_report.desc())
            .limit(_QUEUES_KEPT)
        )
        connection.execute(
            delete(honeypot).where(honeypot.c.name == name, honeypot.c.queue.not_in(newest))
        )

    def _count(
        self, connection: Connection, name: str, sightings: Iterable[Sighting], report: Report
    ) -> None:
        counts: Counter[tuple[str, str]] = Counter()
        for one in sightings:
            counts["method", known_method(one.method)] += one.count
            counts["tool", one.tool or "unknown"] += one.count
            counts["transport", one.transport] += one.count
            counts["honeypot", name] += one.count
        counts["unproven", name] += (
            sum(one.count for one in report.unproven) + report.unproven_not_kept
        )
        numbers.add(connection, self._now(), counts)
