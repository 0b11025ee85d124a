"""Never more than N requests in any W seconds for one key, restarts included.

The times of a key's last N counted requests stand in a ring: a request may pass when the one N
before it is older than W. That is exact, and costs one row however large N is.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from apiban.feed.server.database import Database
from apiban.feed.server.database.connect import upsert
from apiban.feed.server.database.schema import key, request
from apiban.feed.server.keys import KeyRecord

__all__ = ["Quota"]

# Rounding may leave nothing of a wait, which would read as "let through".
_SHORTEST: Final = 0.001
_WRITE_USES_EVERY: Final = 1.0


class Quota:
    """Counts the requests of keys; ``requests`` in ``seconds`` hold for a key without its own."""

    def __init__(
        self, database: Database, now: Callable[[], float], *, requests: int, seconds: float
    ) -> None:
        self._database = database
        self._now = now
        self._requests = requests
        self._seconds = seconds
        self._lock = threading.Lock()
        self._uses: Counter[int] = Counter()
        self._written: dict[int, float] = {}

    def take(self, record: KeyRecord) -> float:
        """Count a request: 0 lets it through, else give the seconds until the next may come.

        Raises:
            StoreError

        """
        limit = self._requests if record.requests is None else record.requests
        window = self._seconds if record.seconds is None else record.seconds
        if not limit:
            self._count(record.id)
            return 0.0
        with self._database.write(the_list=False) as connection:
            # FOR UPDATE: PostgreSQL's other writers of this key wait (SQLite has one writer).
            counted = connection.execute(
                select(key.c.counted).where(key.c.id == record.id).with_for_update()
            ).scalar_one_or_none()
            if counted is None:
                return window
            now = self._now()
            counted = self._fit(connection, record.id, counted, limit)
            slot = counted % limit
            own = (request.c.key_id == record.id, request.c.slot == slot)
            last = connection.execute(select(request.c.at).where(*own)).scalar_one_or_none()
            if last is not None and last > now:  # the clock was set back: count from here
                connection.execute(update(request).where(*own).values(at=now))
                last = now
            if last is not None and last + window > now:
                return max(float(last + window - now), _SHORTEST)
            entry = upsert(connection, request)
            connection.execute(
                entry.on_conflict_do_update(
                    index_elements=["key_id", "slot"], set_={"at": entry.excluded.at}
                ),
                {"key_id": record.id, "slot": slot, "at": now},
            )
            connection.execute(
                update(key)
                .where(key.c.id == record.id)
                .values(counted=counted + 1, used=key.c.used + 1, last_used=now)
            )
        return 0.0

    def _count(self, record: int) -> None:
        """Count a request of a key without a limit: written down once a second at most."""
        now = self._now()
        with self._lock:
            self._uses[record] += 1
            if 0 <= now - self._written.get(record, 0.0) < _WRITE_USES_EVERY:
                return
            self._written[record] = now
            uses = self._uses.pop(record)
        with self._database.write(the_list=False) as connection:
            connection.execute(
                update(key).where(key.c.id == record).values(used=key.c.used + uses, last_used=now)
            )

    def _fit(self, connection: Connection, record: int, counted: int, limit: int) -> int:
        """Give the ring the quota's length, if that was changed; the newest times stay in it."""
        own = request.c.key_id == record
        longest = connection.execute(select(func.max(request.c.slot)).where(own)).scalar()
        length = 0 if longest is None else longest + 1
        if length == limit or (length < limit and length == counted):
            return counted  # it is full, or still being filled
        times = connection.execute(select(request.c.at).where(own).order_by(request.c.at)).all()
        kept = [row.at for row in times[-limit:]]
        connection.execute(delete(request).where(own))
        if kept:
            connection.execute(
                insert(request),
                [{"key_id": record, "slot": slot, "at": at} for slot, at in enumerate(kept)],
            )
        return len(kept)
