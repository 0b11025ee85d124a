"""Counts an hour, for the status page and the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, delete

from apiban.feed.server.database.connect import upsert
from apiban.feed.server.database.schema import statistic

__all__ = ["HOUR", "add", "forget", "put"]

HOUR: Final = 3600


def add(connection: Connection, now: float, counts: Mapping[tuple[str, str], int]) -> None:
    """Add to the counts of this hour; a count is named by its series and its label."""
    rows = _rows(now, {name: value for name, value in counts.items() if value})
    if rows:
        insert = upsert(connection, statistic)
        value = statistic.c.value + insert.excluded.value
        connection.execute(_on_conflict(insert, value), rows)


def put(connection: Connection, now: float, values: Mapping[tuple[str, str], int]) -> None:
    """Set the values of this hour: what was counted, not what came in it."""
    if values:
        insert = upsert(connection, statistic)
        connection.execute(_on_conflict(insert, insert.excluded.value), _rows(now, values))


def forget(connection: Connection, before: float) -> None:
    """Forget the hours before a time."""
    connection.execute(delete(statistic).where(statistic.c.hour < int(before // HOUR)))


def _on_conflict(insert: Any, value: Any) -> Any:
    keys = [statistic.c.hour, statistic.c.series, statistic.c.label]
    return insert.on_conflict_do_update(index_elements=keys, set_={"value": value})


def _rows(now: float, counts: Mapping[tuple[str, str], int]) -> list[dict[str, object]]:
    hour = int(now // HOUR)
    # In one order everywhere, so that two writers never wait for each other in a circle.
    return [
        {"hour": hour, "series": series, "label": label[:64], "value": value}
        for (series, label), value in sorted(counts.items())
    ]
