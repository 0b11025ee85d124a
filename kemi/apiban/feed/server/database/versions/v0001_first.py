"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "claim",
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("dataset", sa.String(length=8), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("first_seen", sa.Float(precision=53), nullable=False),
        sa.Column("last_seen", sa.Float(precision=53), nullable=False),
        sa.Column("expires", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("address", "dataset", "source"),
    )
    op.create_index("claim_expires", "claim", ["expires"], unique=False)
    op.create_index("claim_source", "claim", ["source"], unique=False)
    op.create_table(
        "counter",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "enrolment",
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("asked", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("email"),
        sa.UniqueConstraint("hash"),
    )
    op.create_table(
        "evidence",
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("honeypot", sa.String(length=64), nullable=False),
        sa.Column("method", sa.String(length=32), nullable=False),
        sa.Column("transport", sa.String(length=8), nullable=False),
        sa.Column("first_seen", sa.Float(precision=53), nullable=False),
        sa.Column("last_seen", sa.Float(precision=53), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("proof", sa.String(length=16), nullable=False),
        sa.Column("tool", sa.String(length=32), nullable=True),
        sa.Column("user_agent", sa.String(length=200), nullable=True),
        sa.Column("dialled", sa.String(length=64), nullable=True),
        sa.Column("users", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("address", "honeypot", "method", "transport"),
    )
    op.create_index("evidence_last_seen", "evidence", ["last_seen"], unique=False)
    op.create_table(
        "honeypot",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("queue", sa.String(length=32), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("last_report", sa.Float(precision=53), nullable=False),
        sa.Column("sightings", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "queue"),
    )
    op.create_table(
        "journal",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.Column("who", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("what", sa.String(length=254), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "key",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("may", sa.String(length=8), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=True),
        sa.Column("seconds", sa.Float(precision=53), nullable=True),
        sa.Column("blocks", sa.Boolean(), nullable=False),
        sa.Column("ipv6", sa.Boolean(), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("created", sa.Float(precision=53), nullable=False),
        sa.Column("revoked", sa.Float(precision=53), nullable=True),
        sa.Column("last_used", sa.Float(precision=53), nullable=True),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("counted", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("email"),
        sa.UniqueConstraint("hash"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "listing",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("dataset", sa.String(length=8), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("subscriber", sa.String(length=64), nullable=True),
        sa.Column("since", sa.Float(precision=53), nullable=False),
        sa.Column("listed", sa.Float(precision=53), nullable=False),
        sa.Column("last_seen", sa.Float(precision=53), nullable=False),
        sa.Column("expires", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("address", "dataset"),
    )
    op.create_index("listing_expires", "listing", ["expires"], unique=False)
    op.create_index("listing_subscriber", "listing", ["subscriber"], unique=False)
    op.create_index("listing_page", "listing", ["dataset", "kind", "id"], unique=False)
    op.create_table(
        "note",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "past",
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("dataset", sa.String(length=8), nullable=False),
        sa.Column("ended", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("address", "dataset"),
    )
    op.create_index("past_ended", "past", ["ended"], unique=False)
    op.create_table(
        "request",
        sa.Column("key_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "slot"),
    )
    op.create_table(
        "sighting",
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("honeypot", sa.String(length=64), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("address", "honeypot", "slot"),
    )
    op.create_index("sighting_slot", "sighting", ["slot"], unique=False)
    op.create_table(
        "statistic",
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("series", sa.String(length=32), nullable=False),
        sa.Column("label", sa.String(length=64), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "series", "label"),
    )
    op.create_table(
        "suppression",
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("until", sa.Float(precision=53), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("address"),
    )
    op.create_table(
        "unproven",
        sa.Column("honeypot", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("first_seen", sa.Float(precision=53), nullable=False),
        sa.Column("last_seen", sa.Float(precision=53), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("method", sa.String(length=32), nullable=False),
        sa.Column("tool", sa.String(length=32), nullable=True),
        sa.Column("user_agent", sa.String(length=200), nullable=True),
        sa.PrimaryKeyConstraint("honeypot", "address"),
    )
    op.create_index("unproven_age", "unproven", ["honeypot", "last_seen"], unique=False)
