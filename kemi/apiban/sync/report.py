"""What the sync process is doing, for whoever looks: ``runtime/sync.json``.

Written by that process alone, whole and by rename, at most once a second and when it changed. It
holds no secret. The command line reads it; where it is missing or old, no sync runs.

Beside it ``runtime/settings.json`` has the last good settings, without keys: an operator must be
able to overrule also while the settings have a mistake.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from apiban.settings.explain import from_plain, to_plain
from apiban.settings.model import Settings
from apiban.sync.document import get_document, put_document, record

__all__ = [
    "HEALTHS",
    "HELD_BACK",
    "PAIRS",
    "Health",
    "Pair",
    "SyncReport",
    "keep_settings",
    "kept_path",
    "kept_settings",
    "read_report",
    "report_path",
    "write_report",
]

# How the feed answered last.
Health = Literal["unknown", "ok", "no-key", "outage", "invalid", "unauthorized", "rate-limited"]
HEALTHS: Final[tuple[Health, ...]] = get_args(Health)
# Why a page of the feed is not taken.
HELD_BACK: Final = ("growth-held", "too-long")
# What may disagree: ``apiban.sync.drift``.
Pair = Literal["feed-store", "store-list", "list-workers"]
PAIRS: Final[tuple[Pair, ...]] = get_args(Pair)

_LARGEST: Final = 1 << 16
_LARGEST_SETTINGS: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class SyncReport:
    """Where the sync stands. Times are in seconds since 1970, None where there is none.

    ``feed`` is one of ``HEALTHS``. ``held_back`` is one of ``HELD_BACK`` while a page of the feed
    is not taken, ``waiting`` the number of its new entries. ``position`` is the journal's number up
    to which the published list knows the store, and ``store`` the number of its file (its inode), 0
    while it is not open. ``entries`` are those of the feed in the store,
    ``local`` and ``detector`` those of the other sources. ``override`` is the operator's mode,
    empty while the settings' is in force. ``drift`` names those of ``PAIRS`` that disagree, with a
    blank between them.
    """

    pid: int
    at: float
    feed: str
    error: str
    next_request_at: float | None
    budget_left: int
    budget: int
    window: float
    entries: int
    complete_at: float | None
    pass_number: int
    pass_started: float | None
    pass_seen: int
    pass_ended: float | None
    held: int
    held_since: float | None
    held_back: str
    waiting: int
    store_error: str
    settings_error: str
    position: int
    local: int = 0
    detector: int = 0
    override: str = ""
    drift: str = ""
    store: int = 0


def report_path(runtime: Path) -> Path:
    """Give where the report is."""
    return runtime / "sync.json"


def write_report(path: Path, report: SyncReport) -> bool:
    """Put the report in its place; tell whether that could be done."""
    try:
        put_document(path, asdict(report))
    except OSError:
        return False
    return True


def read_report(path: Path) -> SyncReport | None:
    """Read the report; None when there is none that this version can read."""
    try:
        return record(SyncReport, get_document(path, largest=_LARGEST))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def kept_path(runtime: Path) -> Path:
    """Give where the last good settings are."""
    return runtime / "settings.json"


def keep_settings(path: Path, settings: Settings) -> bool:
    """Keep settings for who looks while later ones are bad; tell whether that could be done."""
    try:
        put_document(path, to_plain(settings))
    except OSError:
        return False
    return True


def kept_settings(path: Path) -> Settings | None:
    """Give the last good settings; None when there are none that this version can read."""
    try:
        raw = get_document(path, largest=_LARGEST_SETTINGS)
        return from_plain(raw) if isinstance(raw, dict) else None
    except (OSError, ValueError, RecursionError):
        return None
