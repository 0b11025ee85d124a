"""Small named values that outlive the process: JSON texts in the ``note`` table."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, select

from apiban.feed.server.database.connect import upsert
from apiban.feed.server.database.schema import note

__all__ = ["read_note", "write_note"]


def read_note(connection: Connection, name: str) -> dict[str, Any]:
    """Give a note's values; an empty mapping when there is none."""
    text = connection.execute(select(note.c.value).where(note.c.name == name)).scalar_one_or_none()
    return dict(json.loads(text)) if text else {}


def write_note(connection: Connection, name: str, values: dict[str, Any], *, now: float) -> None:
    """Write a note over the earlier one."""
    entry = upsert(connection, note)
    given = entry.excluded
    connection.execute(
        entry.on_conflict_do_update(
            index_elements=["name"], set_={"value": given.value, "at": given.at}
        ),
        {"name": name, "value": json.dumps(values), "at": now},
    )
