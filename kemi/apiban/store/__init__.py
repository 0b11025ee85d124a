"""The store: what is banned and allowed, where each feed stands, and what was asked of it."""

from apiban.store.entries import Filter
from apiban.store.records import (
    DETECTOR,
    FEED_SOURCE,
    LOCAL,
    OPERATOR,
    UNBAN,
    Allowed,
    Entry,
    FeedState,
    ModeOverride,
    SentRequest,
    Task,
)
from apiban.store.store import Store, overriding_mode

__all__ = [
    "DETECTOR",
    "FEED_SOURCE",
    "LOCAL",
    "OPERATOR",
    "UNBAN",
    "Allowed",
    "Entry",
    "FeedState",
    "Filter",
    "ModeOverride",
    "SentRequest",
    "Store",
    "Task",
    "overriding_mode",
]
