"""Where each feed's sync stands, and the requests that count against its rate limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple

from apiban.store.file import StoreFile
from apiban.store.records import FeedState, SentRequest

__all__ = ["Feeds"]


class Feeds(StoreFile):
    """The tables of feeds and of requests."""

    def feed(self, name: str, identity: str) -> FeedState:
        """Give where the feed's sync stands; the list of another identity starts anew.

        The number of the last pass goes on, so that entries of the old list count as unseen.
        """
        with self._errors():
            row = self._db.execute(
                "SELECT identity, cursor, complete_at, pass_number, pass_cursor, pass_started,"
                " pass_ended, held, held_since FROM feed WHERE name = ?",
                (name,),
            ).fetchone()
        if row is None:
            return FeedState(identity)
        state = FeedState(*row)
        if state.identity != identity:
            return FeedState(identity, pass_number=state.pass_number)
        return state

    def save_feed(self, name: str, state: FeedState) -> None:
        """Save where the feed's sync stands."""
        with self._transaction():
            self._write_feed(name, state)

    def add_request(
        self,
        feed: str,
        request: SentRequest,
        *,
        may: Callable[[list[SentRequest]], bool] = lambda _: True,
    ) -> int | None:
        """Note a request before it is sent, if it may be, beside those that were; give its number.

        Looking and noting are one transaction: of several processes none takes another's place.
        """
        with self._transaction():
            if not may(self._requests(feed)):
                return None
            return self._db.execute(
                "INSERT INTO request (feed, boot, until) VALUES (?, ?, ?)",
                (feed, request.boot, request.until),
            ).lastrowid

    def settle_request(self, number: int, until: float) -> None:
        """Put the moment of its answer in the place of the latest one possible."""
        with self._transaction():
            self._db.execute("UPDATE request SET until = ? WHERE id = ?", (until, number))

    def requests(self, feed: str) -> list[SentRequest]:
        """Give the requests that were noted and not yet forgotten."""
        with self._errors():
            return self._requests(feed)

    def forget_requests(self, feed: str, *, boot: str, before: float) -> None:
        """Drop the requests of this boot that ended before, and all of earlier boots."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM request WHERE feed = ? AND (boot != ? OR until < ?)",
                (feed, boot, before),
            )

    def _requests(self, feed: str) -> list[SentRequest]:
        rows = self._db.execute(
            "SELECT boot, until FROM request WHERE feed = ? ORDER BY id", (feed,)
        ).fetchall()
        return [SentRequest(*row) for row in rows]

    def _write_feed(self, name: str, state: FeedState) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO feed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (name, *astuple(state)),
        )
