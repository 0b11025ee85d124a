"""What only the operator may see: keys, the journal, addresses and the evidence on each."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Table, func, select

from apiban.feed.server.database.schema import (
    claim,
    evidence,
    honeypot,
    key,
    listing,
    past,
    suppression,
    unproven,
)
from apiban.feed.server.journal import Action, actions
from apiban.feed.server.keys import KeyRecord
from apiban.feed.server.page.chart import Amount

__all__ = [
    "Case",
    "Claim",
    "Latest",
    "Listing",
    "Probe",
    "Records",
    "Suspect",
    "Trace",
    "case_of",
    "records",
]

_MOST_KEYS: Final = 200
_KEYS_IN_CHART: Final = 12
_MOST_ACTIONS: Final = 30
_MOST_LISTINGS: Final = 50
# A source may probe in as many ways as it likes to make up.
_MOST_PROBES: Final = 200


@dataclass(frozen=True, slots=True)
class Claim:
    """Who wants an address listed, and why."""

    address: str
    dataset: str
    source: str
    reason: str
    first_seen: float
    last_seen: float
    expires: float


@dataclass(frozen=True, slots=True)
class Listing:
    """One active address."""

    id: int
    address: str
    dataset: str
    since: float
    listed: float
    last_seen: float
    expires: float


@dataclass(frozen=True, slots=True)
class Trace:
    """The evidence on an address in short: messages, ways of probing, one of the user agents."""

    messages: int
    ways: int
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class Latest:
    """A listing with who claims it, and the evidence in short."""

    listing: Listing
    claims: tuple[Claim, ...]
    trace: Trace | None


@dataclass(frozen=True, slots=True)
class Records:
    """The operator's part of the page; ``key_count`` may be more than are shown."""

    keys: tuple[KeyRecord, ...]
    key_count: int
    actions: tuple[Action, ...]
    latest: tuple[Latest, ...]

    @property
    def key_use(self) -> tuple[Amount, ...]:
        """The keys used most, of those shown."""
        used = sorted(self.keys, key=lambda one: (-one.used, one.name))
        return tuple(Amount(one.name, one.used) for one in used[:_KEYS_IN_CHART])


@dataclass(frozen=True, slots=True)
class Probe:
    """One way in which a proven source probed a honeypot."""

    honeypot: str
    method: str
    transport: str
    first_seen: float
    last_seen: float
    count: int
    proof: str
    tool: str | None
    user_agent: str | None
    dialled: str | None
    users: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suspect:
    """What a honeypot saw in an address's name: it proved nothing, and may be forged."""

    honeypot: str
    method: str
    first_seen: float
    last_seen: float
    count: int
    tool: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known of one address; times in seconds since 1970."""

    address: str
    listings: tuple[Listing, ...]
    claims: tuple[Claim, ...]
    probes: tuple[Probe, ...]
    probe_count: int
    suspects: tuple[Suspect, ...]
    ended: float | None
    kept_off_until: float | None
    kept_off_for: str


def records(connection: Connection) -> Records:
    """Read the operator's part."""
    keys = connection.execute(
        select(*_columns(key, KeyRecord))
        .order_by(key.c.last_used.desc().nulls_last(), key.c.id)
        .limit(_MOST_KEYS)
    )
    listings = [
        Listing(*row)
        for row in connection.execute(
            select(*_columns(listing, Listing)).order_by(listing.c.id.desc()).limit(_MOST_LISTINGS)
        )
    ]
    addresses = sorted({one.address for one in listings})
    claims: dict[tuple[str, str], list[Claim]] = defaultdict(list)
    for one in _claims(connection, addresses):
        claims[one.address, one.dataset].append(one)
    traces = _traces(connection, addresses)
    return Records(
        keys=tuple(KeyRecord(*row) for row in keys),
        key_count=int(connection.execute(select(func.count()).select_from(key)).scalar_one()),
        actions=tuple(actions(connection, _MOST_ACTIONS)),
        latest=tuple(
            Latest(one, tuple(claims[one.address, one.dataset]), traces.get(one.address))
            for one in listings
        ),
    )


def case_of(connection: Connection, address: str) -> Case:
    """Read all that is known of an address or a network, by its text as it is stored."""
    listings = connection.execute(
        select(*_columns(listing, Listing))
        .where(listing.c.address == address)
        .order_by(listing.c.dataset)
    )
    probes = connection.execute(
        select(*_columns(evidence, Probe))
        .where(evidence.c.address == address)
        .order_by(evidence.c.last_seen.desc())
        .limit(_MOST_PROBES)
    )
    # By each honeypot's name, since the key begins with it.
    suspects = connection.execute(
        select(*_columns(unproven, Suspect))
        .where(
            unproven.c.honeypot.in_(select(honeypot.c.name).distinct()),
            unproven.c.address == address,
        )
        .order_by(unproven.c.last_seen.desc())
    )
    kept_off = connection.execute(
        select(suppression.c.until, suppression.c.reason).where(suppression.c.address == address)
    ).first()
    return Case(
        address=address,
        listings=tuple(Listing(*row) for row in listings),
        claims=tuple(_claims(connection, [address])),
        probes=tuple(_probe(row) for row in probes.mappings()),
        probe_count=int(
            connection.execute(
                select(func.count()).where(evidence.c.address == address)
            ).scalar_one()
        ),
        suspects=tuple(Suspect(*row) for row in suspects),
        ended=connection.execute(
            select(func.max(past.c.ended)).where(past.c.address == address)
        ).scalar_one(),
        kept_off_until=kept_off.until if kept_off else None,
        kept_off_for=kept_off.reason if kept_off else "",
    )


def _columns(table: Table, record: type[Any]) -> list[Any]:
    """Give the columns of a table that a record's fields are named after."""
    return [table.c[name] for name in record.__slots__]


def _probe(row: Mapping[Any, Any]) -> Probe:
    return Probe(**{**row, "users": tuple(json.loads(row["users"]))})


def _claims(connection: Connection, addresses: Sequence[str]) -> list[Claim]:
    query = (
        select(*_columns(claim, Claim))
        .where(claim.c.address.in_(addresses))
        .order_by(claim.c.dataset, claim.c.source)
    )
    return [Claim(*row) for row in connection.execute(query)]


def _traces(connection: Connection, addresses: Sequence[str]) -> dict[str, Trace]:
    query = (
        select(
            evidence.c.address,
            func.sum(evidence.c.count).label("messages"),
            func.count().label("ways"),
            func.max(evidence.c.user_agent).label("user_agent"),
        )
        .where(evidence.c.address.in_(addresses))
        .group_by(evidence.c.address)
    )
    return {
        row.address: Trace(int(row.messages), row.ways, row.user_agent)
        for row in connection.execute(query)
    }
