"""The store: what is banned and allowed, where each feed stands, and what was asked of it."""

from apiban.store.records import FEED_SOURCE, FeedState, SentRequest
from apiban.store.store import Store

__all__ = ["FEED_SOURCE", "FeedState", "SentRequest", "Store"]
