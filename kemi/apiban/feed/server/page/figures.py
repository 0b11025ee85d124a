"""What everybody may see: numbers, and no key, no address and no name of a honeypot's.

The queries walk the statistic table's last 30 days and count at most; the counts that grow with
the list are taken once a minute.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from apiban.feed.server.claims import FILE
from apiban.feed.server.database.schema import (
    claim,
    honeypot,
    key,
    listing,
    statistic,
    unproven,
)
from apiban.feed.server.listings import DATASETS
from apiban.feed.server.notes import read_note
from apiban.feed.server.numbers import HOUR
from apiban.feed.server.page.chart import Amount, Series

__all__ = [
    "Counts",
    "Figures",
    "Honeypot",
    "Mirror",
    "SlowCounts",
    "active_now",
    "figures_at",
    "honeypots_at",
    "mirror_state",
]

ALIVE_WITHIN: Final = 900.0

_DAY_HOURS: Final = 24
_DAYS: Final = 30
_WEEK_HOURS: Final = 7 * _DAY_HOURS
_COUNT_EVERY: Final = 60.0
# The curator counts once a minute: a count of an earlier hour than the last one is not kept up.
_COUNT_HOURS: Final = 2
_MOST_LABELS: Final = 12
_CHANGES: Final = ("new", "reactivated", "ended")


@dataclass(frozen=True, slots=True)
class Honeypot:
    """One honeypot; ``alive`` when it reported a short while ago."""

    name: str
    last_report: float
    sightings: int
    alive: bool


@dataclass(frozen=True, slots=True)
class Mirror:
    """The last that was heard of the upstream; times in seconds since 1970."""

    state: str
    entries: int
    complete_at: float | None
    at: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts that take time: active claims by source, and sources that proved nothing."""

    sources: tuple[Amount, ...]
    unproven: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The page's numbers as of ``at``; series over 30 days, sightings of the last 7."""

    at: float
    active: tuple[Amount, ...]
    counts: Counts
    history: tuple[Series, ...]
    changes: tuple[Series, ...]
    methods: tuple[Amount, ...]
    tools: tuple[Amount, ...]
    transports: tuple[Amount, ...]
    unproven_messages: int
    honeypots: tuple[Honeypot, ...]
    mirror: Mirror | None
    keys: tuple[Amount, ...]


class SlowCounts:
    """Takes the counts that grow with the list, once a minute for all who ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: Counts | None = None
        self._at = 0.0

    def at(self, connection: Connection, now: float) -> Counts:
        """Give them, at most a minute old."""
        with self._lock:
            if self._kept is None or not 0 <= now - self._at < _COUNT_EVERY:
                self._kept, self._at = _counts(connection), now
            return self._kept


def figures_at(connection: Connection, now: float, slow: SlowCounts) -> Figures:
    """Read the numbers."""
    hour = int(now // HOUR)
    sums = _sums(connection, hour)
    return Figures(
        at=now,
        active=active_now(connection, now),
        counts=slow.at(connection, now),
        history=_history(connection, hour),
        changes=_changes(connection, hour),
        methods=_largest(sums["method"]),
        tools=_largest(sums["tool"]),
        transports=_largest(sums["transport"]),
        unproven_messages=sum(sums["unproven"].values()),
        honeypots=honeypots_at(connection, now),
        mirror=mirror_state(connection),
        keys=_keys(connection),
    )


def active_now(connection: Connection, now: float) -> tuple[Amount, ...]:
    """Give how many addresses of each data set are active, as the curator counted them.

    When it has not done so lately, they are counted here: that takes an index of 1,000,000 rows.
    """
    query = (
        select(statistic.c.hour, statistic.c.label, statistic.c.value)
        .where(statistic.c.hour > int(now // HOUR) - _COUNT_HOURS, statistic.c.series == "active")
        .order_by(statistic.c.hour)
    )
    found = {row.label: row.value for row in connection.execute(query)}
    if not found:
        rows = select(listing.c.dataset, func.count()).group_by(listing.c.dataset)
        found = {row[0]: row[1] for row in connection.execute(rows)}
    return tuple(Amount(dataset, found.get(dataset, 0)) for dataset in DATASETS)


def honeypots_at(connection: Connection, now: float) -> tuple[Honeypot, ...]:
    """Give every honeypot that ever reported, by name."""
    query = (
        select(
            honeypot.c.name,
            func.max(honeypot.c.last_report).label("last_report"),
            func.sum(honeypot.c.sightings).label("sightings"),
        )
        .group_by(honeypot.c.name)
        .order_by(honeypot.c.name)
    )
    return tuple(
        Honeypot(
            row.name, row.last_report, int(row.sightings), now - row.last_report < ALIVE_WITHIN
        )
        for row in connection.execute(query)
    )


def mirror_state(connection: Connection) -> Mirror | None:
    """Give the state that the mirror noted; None when there is none that can be read."""
    try:
        row = read_note(connection, "mirror")
        complete_at = row["complete_at"]
        return Mirror(
            state=str(row["state"])[:64],
            entries=int(row["entries"]),
            complete_at=None if complete_at is None else float(complete_at),
            at=float(row["at"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _counts(connection: Connection) -> Counts:
    rows = connection.execute(select(claim.c.source, func.count()).group_by(claim.c.source))
    sources: dict[str, int] = defaultdict(int)
    for source, count in rows:
        # What an operator called a file is nobody else's business.
        sources["file" if source.startswith(FILE) else source] += count
    return Counts(
        _largest(sources),
        int(connection.execute(select(func.count()).select_from(unproven)).scalar_one()),
    )


def _sums(connection: Connection, hour: int) -> dict[str, dict[str, int]]:
    """Give what the honeypots reported in the last 7 days, by series and label."""
    query = (
        select(statistic.c.series, statistic.c.label, func.sum(statistic.c.value))
        .where(
            statistic.c.hour > hour - _WEEK_HOURS,
            statistic.c.series.in_(("method", "tool", "transport", "unproven")),
        )
        .group_by(statistic.c.series, statistic.c.label)
    )
    sums: dict[str, dict[str, int]] = defaultdict(dict)
    for series, label, value in connection.execute(query):
        sums[series][label] = int(value)
    return sums


def _history(connection: Connection, hour: int) -> tuple[Series, ...]:
    """Give the active addresses of each data set, by the hour."""
    query = (
        select(statistic.c.hour, statistic.c.label, statistic.c.value)
        .where(
            statistic.c.hour >= hour - _DAYS * _DAY_HOURS,
            statistic.c.hour <= hour,
            statistic.c.series == "active",
        )
        .order_by(statistic.c.hour)
    )
    points: dict[str, list[tuple[float, float]]] = {dataset: [] for dataset in DATASETS}
    for row in connection.execute(query):
        points.setdefault(row.label, []).append((row.hour * HOUR, row.value))
    return tuple(Series(label, tuple(points[label])) for label in points)


def _changes(connection: Connection, hour: int) -> tuple[Series, ...]:
    """Give what came and went, by the day in UTC: a day without a number had none."""
    query = select(statistic.c.hour, statistic.c.label, statistic.c.value).where(
        statistic.c.hour > hour - _DAYS * _DAY_HOURS,
        statistic.c.hour <= hour,
        statistic.c.series == "listed",
    )
    sums: dict[str, dict[int, int]] = {label: {} for label in _CHANGES}
    for row in connection.execute(query):
        days = sums.setdefault(row.label, {})
        days[row.hour // _DAY_HOURS] = days.get(row.hour // _DAY_HOURS, 0) + row.value
    known = [day for days in sums.values() for day in days]
    if not known:
        return tuple(Series(label, ()) for label in sums)
    days_shown = range(min(known), hour // _DAY_HOURS + 1)
    return tuple(
        Series(label, tuple((day * _DAY_HOURS * HOUR, days.get(day, 0)) for day in days_shown))
        for label, days in sums.items()
    )


def _largest(sums: dict[str, int]) -> tuple[Amount, ...]:
    """Give the largest, and the others as one."""
    ordered = sorted(sums.items(), key=lambda one: (-one[1], one[0]))
    if len(ordered) > _MOST_LABELS:
        rest = sum(value for _, value in ordered[_MOST_LABELS - 1 :])
        ordered = [*ordered[: _MOST_LABELS - 1], ("all others", rest)]
    return tuple(Amount(label, value) for label, value in ordered)


def _keys(connection: Connection) -> tuple[Amount, ...]:
    """Give how many keys are in force, by what they may."""
    query = (
        select(key.c.may, func.count())
        .where(key.c.revoked.is_(None))
        .group_by(key.c.may)
        .order_by(key.c.may)
    )
    return tuple(Amount(may, count) for may, count in connection.execute(query))
