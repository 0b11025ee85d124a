"""What a sync process says of itself, for those who read it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from apiban.sync.report import SyncReport

_NOTHING = {"str": "", "int": 0, "float": 0.0, "float | None": None}


def sync_report(**values: Any) -> SyncReport:
    """Give the report of a sync whose feed answers; what is not named is nothing."""
    usual = {field.name: _NOTHING[str(field.type)] for field in fields(SyncReport)}
    usual |= {"pid": 9, "feed": "ok", "budget_left": 4, "budget": 5, "window": 120.0}
    return SyncReport(**{**usual, **values})
