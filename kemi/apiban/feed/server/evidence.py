"""What the honeypots saw of each address, for the life of its listing, and whether it is enough.

Unproven sources stand apart: they are shown, bounded in number, and never counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, case, delete, func, select

from apiban.feed.server.database.connect import upsert
from apiban.feed.server.database.schema import evidence, listing, sighting, unproven
from apiban.feed.server.report import Sighting, Unproven
from apiban.feed.server.settings import CurationSettings

__all__ = ["Evidence", "known_method"]

# Slots of time in the period within which sightings add up to a threshold.
_SLOTS: Final = 24
_UNPROVEN_KEPT: Final = 10_000
_USERS_KEPT: Final = 20
_METHODS: Final = frozenset(
    (
        *("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REGISTER", "SUBSCRIBE", "NOTIFY"),
        *("MESSAGE", "PUBLISH", "INFO", "REFER", "UPDATE", "PRACK"),
    )
)


def known_method(method: str) -> str:
    """Give a method's name, or "other" for what SIP does not know.

    So what scanners invent makes neither rows of evidence nor labels without end.
    """
    return method if method in _METHODS else "other"


class Evidence:
    """Keeps evidence, inside a transaction that the caller has begun."""

    def __init__(self, settings: CurationSettings, now: Callable[[], float]) -> None:
        self._settings = settings
        self._now = now

    def of(self, connection: Connection, address: str) -> list[dict[str, Any]]:
        """Give what the honeypots saw of an address, the latest first."""
        query = (
            select(evidence)
            .where(evidence.c.address == address)
            .order_by(evidence.c.last_seen.desc())
        )
        rows = [dict(row) for row in connection.execute(query).mappings()]
        return [{**row, "users": json.loads(row["users"])} for row in rows]

    def forget(self, connection: Connection) -> None:
        """Drop what no listing needs any more."""
        now = self._now()
        oldest = now - max(self._settings.within, self._settings.active_for)
        is_listed = select(listing.c.id).where(listing.c.address == evidence.c.address).exists()
        connection.execute(delete(evidence).where(evidence.c.last_seen < oldest, ~is_listed))
        connection.execute(delete(sighting).where(sighting.c.slot < self._slot(oldest)))
        connection.execute(delete(unproven).where(unproven.c.last_seen < oldest))

    def keep(self, connection: Connection, name: str, sightings: Iterable[Sighting]) -> None:
        """Add a honeypot's sightings, one row each way of probing."""
        rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        now = self._now()
        for one in sightings:
            at = min(one.at, now)
            row = rows.setdefault(
                (str(one.source), known_method(one.method), one.transport),
                {
                    "address": str(one.source),
                    "honeypot": name,
                    "method": known_method(one.method),
                    "transport": one.transport,
                    "first_seen": at,
                    "last_seen": at,
                    "count": 0,
                    "users": (),
                },
            )
            row["count"] += one.count
            row["first_seen"] = min(row["first_seen"], at)
            row["last_seen"] = max(row["last_seen"], at)
            row["users"] = tuple(dict.fromkeys((*row["users"], *one.users)))[:_USERS_KEPT]
            row |= {
                "proof": one.proof,
                "tool": one.tool or row.get("tool"),
                "user_agent": one.user_agent or row.get("user_agent"),
                "dialled": one.dialled or row.get("dialled"),
            }
        entry = upsert(connection, evidence)
        given = entry.excluded
        values: dict[str, Any] = {
            name: func.coalesce(given[name], evidence.c[name])
            for name in ("tool", "user_agent", "dialled")
        }
        values |= {
            "proof": given.proof,
            "count": evidence.c.count + given.count,
            "last_seen": case(
                (evidence.c.last_seen < given.last_seen, given.last_seen),
                else_=evidence.c.last_seen,
            ),
            "users": case((given.users == "[]", evidence.c.users), else_=given.users),
        }
        connection.execute(
            entry.on_conflict_do_update(
                index_elements=["address", "honeypot", "method", "transport"], set_=values
            ),
            [{**row, "users": json.dumps(row["users"])} for _, row in sorted(rows.items())],
        )

    def enough(
        self, connection: Connection, name: str, sightings: Sequence[Sighting]
    ) -> list[Sighting]:
        """Give the sightings whose source has met the thresholds; active ones have."""
        settings = self._settings
        if settings.sightings == 1 and settings.honeypots == 1:
            return list(sightings)
        self._add_up(connection, name, sightings)
        addresses = sorted({str(one.source) for one in sightings})
        since = self._slot(self._now() - settings.within)
        met = connection.execute(
            select(sighting.c.address)
            .where(sighting.c.address.in_(addresses), sighting.c.slot > since)
            .group_by(sighting.c.address)
            .having(
                func.sum(sighting.c.count) >= settings.sightings,
                func.count(sighting.c.honeypot.distinct()) >= settings.honeypots,
            )
        )
        enough = {row.address for row in met}
        active = connection.execute(
            select(listing.c.address).where(
                listing.c.address.in_(addresses), listing.c.expires > self._now()
            )
        )
        enough |= {row.address for row in active}
        return [one for one in sightings if str(one.source) in enough]

    def _add_up(self, connection: Connection, name: str, sightings: Iterable[Sighting]) -> None:
        counts: Counter[tuple[str, int]] = Counter()
        for one in sightings:
            counts[str(one.source), self._slot(min(one.at, self._now()))] += one.count
        entry = upsert(connection, sighting)
        connection.execute(
            entry.on_conflict_do_update(
                index_elements=["address", "honeypot", "slot"],
                set_={"count": sighting.c.count + entry.excluded.count},
            ),
            [
                {"address": address, "honeypot": name, "slot": slot, "count": count}
                for (address, slot), count in sorted(counts.items())
            ],
        )

    def _slot(self, at: float) -> int:
        return int(at // (self._settings.within / _SLOTS))

    def keep_unproven(self, connection: Connection, name: str, sources: Iterable[Unproven]) -> None:
        """Keep what a honeypot says of unproven sources; the oldest make room."""
        rows: dict[str, dict[str, Any]] = {}
        now = self._now()
        for one in sources:
            row = rows.setdefault(
                str(one.source), {"first_seen": now, "last_seen": 0.0, "count": 0}
            )
            row |= {
                "honeypot": name,
                "address": str(one.source),
                "first_seen": min(one.first, row["first_seen"]),
                "last_seen": max(min(one.last, now), row["last_seen"]),
                "count": row["count"] + one.count,
                "method": one.method,
                "tool": one.tool,
                "user_agent": one.user_agent,
            }
        if not rows:
            return
        entry = upsert(connection, unproven)
        given = entry.excluded
        connection.execute(
            entry.on_conflict_do_update(
                index_elements=["honeypot", "address"],
                set_={
                    "last_seen": given.last_seen,
                    "count": unproven.c.count + given.count,
                    "method": given.method,
                    "tool": given.tool,
                    "user_agent": given.user_agent,
                },
            ),
            [row for _, row in sorted(rows.items())],
        )
        oldest_kept = (
            select(unproven.c.last_seen)
            .where(unproven.c.honeypot == name)
            .order_by(unproven.c.last_seen.desc())
            .offset(_UNPROVEN_KEPT)
            .limit(1)
            .scalar_subquery()
        )
        connection.execute(
            delete(unproven).where(unproven.c.honeypot == name, unproven.c.last_seen <= oldest_kept)
        )
