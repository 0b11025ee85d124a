"""One feed: its parts, put together from the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from apiban.feed.server.claims import Claims
from apiban.feed.server.curator import Curator
from apiban.feed.server.database import Database
from apiban.feed.server.evidence import Evidence
from apiban.feed.server.keys import Keys
from apiban.feed.server.listings import Listings
from apiban.feed.server.never import NeverList
from apiban.feed.server.reports import Reports
from apiban.feed.server.settings import ServerSettings
from apiban.log import Log

__all__ = ["Service"]


class Service:
    """The parts of one feed, which share its database, its clock and its log.

    Raises:
        ApibanError: the never-list cannot be read.
        StoreError: the database cannot be opened.

    """

    def __init__(self, settings: ServerSettings, *, now: Callable[[], float], log: Log) -> None:
        self.settings = settings
        self.log = log
        self.now = now
        self.never = NeverList(settings.curation.never_file, log)
        self.database = Database(settings.database)
        self.claims = Claims(settings.curation, self.never, now)
        self.evidence = Evidence(settings.curation, now)
        self.listings = Listings(self.database, now)
        self.keys = Keys(self.database, now)
        self.reports = Reports(self.database, self.claims, self.evidence, settings.curation, now)
        self.curator = Curator(
            database=self.database,
            claims=self.claims,
            evidence=self.evidence,
            never=self.never,
            now=now,
            log=log,
        )

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
