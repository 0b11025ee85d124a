"""Feeds for the sync's tests, without HTTP: a list that pages as the API does, and faults."""

from __future__ import annotations

from collections.abc import Iterable

from apiban.address import parse_network
from apiban.errors import FeedError
from apiban.feed.answer import EndOfList, Page


class ListFeed:
    """Pages of ``size`` from a list of (ID, address); set ``error`` to fail instead."""

    def __init__(self, addresses: Iterable[str] = (), size: int = 250) -> None:
        self.entries: list[tuple[int, str]] = []
        self.size = size
        self.error: FeedError | None = None
        self.cursors: list[str] = []  # what was asked for, in order
        self._next = 1000
        self.add(*addresses)

    def add(self, *addresses: str) -> None:
        """List addresses at the end, again if they were listed before."""
        for address in addresses:
            self.entries = [entry for entry in self.entries if entry[1] != address]
            self._next += 1
            self.entries.append((self._next, address))

    def remove(self, *addresses: str) -> None:
        """Take addresses off the list."""
        self.entries = [entry for entry in self.entries if entry[1] not in addresses]

    def banned(self, cursor: str = "100") -> Page | EndOfList:
        """Answer as the API does."""
        self.cursors.append(cursor)
        if self.error is not None:
            raise self.error
        page = [entry for entry in self.entries if entry[0] > int(cursor)][: self.size]
        if not page:
            return EndOfList()
        return Page(tuple(parse_network(address) for _, address in page), str(page[-1][0]))
