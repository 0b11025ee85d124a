"""What a sync process, and a firewall client, say of themselves, for those who read it."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

from apiban.firewall.report import FirewallReport
from apiban.sync.report import SyncReport

_NOTHING = {"str": "", "int": 0, "float": 0.0, "float | None": None}


def sync_report(**values: Any) -> SyncReport:
    """Give the report of a sync whose feed answers; what is not named is nothing."""
    usual = {field.name: _NOTHING[str(field.type)] for field in fields(SyncReport)}
    usual |= {"pid": 9, "feed": "ok", "budget_left": 4, "budget": 5, "window": 120.0}
    return SyncReport(**{**usual, **values})


def firewall_report(**values: Any) -> FirewallReport:
    """Give the report of a firewall client for which all is well, of this process."""
    usual: dict[str, Any] = {
        field.name: _NOTHING.get(str(field.type)) for field in fields(FirewallReport)
    }
    usual |= {"pid": os.getpid(), "backend": "nftables", "mode": "enforce", "sources": "all"}
    usual["flooding"] = ()
    return FirewallReport(**{**usual, **values})
