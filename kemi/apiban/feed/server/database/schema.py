"""The tables. Times are seconds since 1970; addresses are texts as ``str(Network)`` writes them.

The text of an address is its identity: equal networks have equal texts, so that a look-up of an
address, or of every network that could cover it, is a look-up by key.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "claim",
    "counter",
    "enrolment",
    "evidence",
    "honeypot",
    "journal",
    "key",
    "listing",
    "metadata",
    "note",
    "past",
    "request",
    "sighting",
    "statistic",
    "suppression",
    "unproven",
]

metadata: Final = MetaData()

# SQLite makes a plain row number of an INTEGER key alone.
_Number: Final = BigInteger().with_variant(Integer, "sqlite")
# A double in PostgreSQL too.
_Time: Final = Float(53)

# What is active now. ``id`` is the cursor that clients page by: it grows, and is never used again.
listing: Final = Table(
    "listing",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("address", String(64), nullable=False),
    Column("dataset", String(8), nullable=False),
    # 0 IPv4 host, 1 IPv6 host, 2 IPv4 block, 3 IPv6 block: a key sees some of them.
    Column("kind", SmallInteger, nullable=False),
    # The network of 64 bits that an IPv6 host is in: one subscriber's, as a rule.
    Column("subscriber", String(64)),
    Column("since", _Time, nullable=False),
    # When the present ID was given.
    Column("listed", _Time, nullable=False),
    Column("last_seen", _Time, nullable=False),
    Column("expires", _Time, nullable=False),
    UniqueConstraint("address", "dataset"),
    Index("listing_page", "dataset", "kind", "id"),
    Index("listing_expires", "expires"),
    Index("listing_subscriber", "subscriber"),
)

# Who says that it is to be listed: "honeypot", "mirror", "manual", or "file:NAME".
claim: Final = Table(
    "claim",
    metadata,
    Column("address", String(64), primary_key=True),
    Column("dataset", String(8), primary_key=True),
    Column("source", String(64), primary_key=True),
    Column("reason", String(200), nullable=False),
    Column("first_seen", _Time, nullable=False),
    Column("last_seen", _Time, nullable=False),
    Column("expires", _Time, nullable=False),
    Index("claim_expires", "expires"),
    Index("claim_source", "source"),
)

# What was listed once: a look at it tells a reactivation from a new address.
past: Final = Table(
    "past",
    metadata,
    Column("address", String(64), primary_key=True),
    Column("dataset", String(8), primary_key=True),
    Column("ended", _Time, nullable=False),
    Index("past_ended", "ended"),
)

# What the honeypots saw of an address, one row each way of probing.
evidence: Final = Table(
    "evidence",
    metadata,
    Column("address", String(64), primary_key=True),
    Column("honeypot", String(64), primary_key=True),
    Column("method", String(32), primary_key=True),
    Column("transport", String(8), primary_key=True),
    Column("first_seen", _Time, nullable=False),
    Column("last_seen", _Time, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("proof", String(16), nullable=False),
    Column("tool", String(32)),
    Column("user_agent", String(200)),
    Column("dialled", String(64)),
    Column("users", Text, nullable=False),
    Index("evidence_last_seen", "last_seen"),
)

# Sightings that count towards the thresholds, in slots of time.
sighting: Final = Table(
    "sighting",
    metadata,
    Column("address", String(64), primary_key=True),
    Column("honeypot", String(64), primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Index("sighting_slot", "slot"),
)

# Sources that proved nothing: shown, and never listed.
unproven: Final = Table(
    "unproven",
    metadata,
    Column("honeypot", String(64), primary_key=True),
    Column("address", String(64), primary_key=True),
    Column("first_seen", _Time, nullable=False),
    Column("last_seen", _Time, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("method", String(32), nullable=False),
    Column("tool", String(32)),
    Column("user_agent", String(200)),
    Index("unproven_age", "honeypot", "last_seen"),
)

# Addresses that an operator delisted: no automatic source lists them until then.
suppression: Final = Table(
    "suppression",
    metadata,
    Column("address", String(64), primary_key=True),
    Column("until", _Time, nullable=False),
    Column("reason", String(200), nullable=False),
    Column("at", _Time, nullable=False),
)

# One row for each honeypot key; the queue is the honeypot's own name of its queue file.
honeypot: Final = Table(
    "honeypot",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("queue", String(32), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("last_report", _Time, nullable=False),
    Column("sightings", BigInteger, nullable=False),
)

key: Final = Table(
    "key",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    # "read" or "report".
    Column("may", String(8), nullable=False),
    # A quota of its own; none means the default, 0 requests means no limit.
    Column("requests", Integer),
    Column("seconds", _Time),
    Column("blocks", Boolean, nullable=False),
    Column("ipv6", Boolean, nullable=False),
    Column("email", String(254), unique=True),
    Column("created", _Time, nullable=False),
    Column("revoked", _Time),
    Column("last_used", _Time),
    Column("used", BigInteger, nullable=False),
    # How many requests the quota counted: the next one's place in the ring of ``request``.
    Column("counted", BigInteger, nullable=False),
)

# The times of each key's last requests that were let through: a ring as long as its quota.
request: Final = Table(
    "request",
    metadata,
    Column("key_id", _Number, primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("at", _Time, nullable=False),
)

# Keys asked for by e-mail and not yet confirmed.
enrolment: Final = Table(
    "enrolment",
    metadata,
    Column("email", String(254), primary_key=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("asked", _Time, nullable=False),
)

# Numbers an hour for the status page; labels come from small sets.
statistic: Final = Table(
    "statistic",
    metadata,
    Column("hour", BigInteger, primary_key=True),
    Column("series", String(32), primary_key=True),
    Column("label", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

journal: Final = Table(
    "journal",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("at", _Time, nullable=False),
    Column("who", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("what", String(254), nullable=False),
    Column("reason", String(200), nullable=False),
)

counter: Final = Table(
    "counter",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# Small named texts: the operator's password, the mirror's state.
note: Final = Table(
    "note",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    Column("at", _Time, nullable=False),
)
