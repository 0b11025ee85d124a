"""The feed: the client of an APIBAN service, and (``feed.server``) a service of our own."""

from apiban.feed.answer import CheckResult, EndOfList, Page
from apiban.feed.client import FeedClient

__all__ = ["CheckResult", "EndOfList", "FeedClient", "Page"]
