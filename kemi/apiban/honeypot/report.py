"""Brings the queue to the feed, batch by batch, until the feed has settled each.

A batch stays in the queue, and stays the same, until the feed says that it has it; the feed knows
by the sequences what it has had before. So neither a lost answer nor a crash loses or doubles a
sighting.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from apiban.clock import Clock
from apiban.errors import FeedError, FeedInvalid, FeedOutage, FeedRateLimited, FeedUnauthorized
from apiban.feed.client import HttpRequest, HttpResponse, Transport
from apiban.gate import Board
from apiban.honeypot.counts import reported, set_last_report, set_reported, total
from apiban.honeypot.queue import Queue
from apiban.honeypot.records import Sighting, Unproven
from apiban.log import Log
from apiban.settings.model import ReportSettings
from apiban.sync.pauses import Pauses

__all__ = ["Reporter"]

_LARGEST_BODY: Final = 1_000_000  # the feed takes 1 MiB
_MOST_UNPROVEN: Final = 1000
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0
_PAUSE_UNAUTHORIZED: Final = 300.0
_STATES: Final[dict[type[FeedError], str]] = {
    FeedOutage: "outage",
    FeedInvalid: "invalid",
    FeedUnauthorized: "unauthorized",
    FeedRateLimited: "rate-limited",
}


class _TooLarge(FeedInvalid):
    """The feed does not take a body of this size."""


class Reporter:
    """Reports one queue to one feed. Each ``tick()`` sends one request at most, and waits for it.

    Raises:
        StoreError: from ``tick()``, when the queue fails.

    """

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        *,
        settings: ReportSettings,
        queue: Queue,
        board: Board,
        clock: Clock,
        log: Log,
        transport: Transport,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._board = board
        self._clock = clock
        self._log = log
        self._transport = transport
        self._pauses = Pauses(jitter, first=_FIRST_PAUSE, ceiling=_LONGEST_PAUSE)
        self._limit = settings.batch
        self._due = 0.0
        self._unproven_due = 0.0
        self._trouble = ""

    def tick(self) -> None:
        """Report what there is, if it is time."""
        now = self._clock.uptime()
        if now < self._due:
            return
        self._due = now + self._settings.interval
        is_new = not self._queue.is_handed_out()
        batch = self._queue.take(self._limit)
        unproven: list[Unproven] = []
        not_kept = 0
        if now >= self._unproven_due:
            unproven = self._queue.unproven(_MOST_UNPROVEN)
            not_kept = max(total(self._board).not_kept - reported(self._board), 0)
        batch, body = self._fitting(batch, unproven, not_kept)
        if not (batch or unproven or not_kept):
            return
        try:
            answer = self._ask(body)
        except _TooLarge as error:
            self._too_large(batch, unproven, error)
        except FeedError as error:
            self._failed(error)
        else:
            repeated = _repeated(answer, batch, is_new=is_new)
            self._settled(batch, unproven, not_kept, answer, repeated)

    # Asking ------------------------------------------------------------------------------------

    def _fitting(
        self, batch: list[Sighting], unproven: list[Unproven], not_kept: int
    ) -> tuple[list[Sighting], dict[str, Any]]:
        """Give as many of the sightings as fit into a body, and the body.

        ``unproven`` is cut short in its place: it can go another time.
        """
        while True:
            body = {
                "queue": self._queue.identity,
                "sightings": [_sighting(one) for one in batch],
                "unproven": [_unproven(one) for one in unproven],
                "unproven_not_kept": not_kept,
            }
            if len(json.dumps(body)) <= _LARGEST_BODY:
                return batch, body
            if unproven:
                del unproven[len(unproven) // 2 :]
            else:  # one sighting is a few kilobytes, so there are several
                self._queue.halve(batch)
                batch = self._queue.take(self._limit)

    def _ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send one report; give the feed's answer to one that it settled."""
        response = self._transport(
            HttpRequest(
                "POST",
                f"{self._settings.url}report",
                {"Authorization": f"Bearer {self._settings.key.reveal()}"},
                body,
            )
        )
        status = response.status
        if status == 200:
            return _read(response)
        if status in {401, 403}:
            raise FeedUnauthorized("the feed refused the key, or its right to report")
        if status == 413:
            raise _TooLarge("the feed takes no report of this size")
        if status == 429:
            after = response.retry_after or ""
            wait = float(after) if after.isascii() and after.isdecimal() else None
            raise FeedRateLimited("the feed says that we reported too often", wait)
        if status >= 500:
            raise FeedOutage(f"the feed answered with status {status}")
        raise FeedInvalid(f"the feed answered with status {status}")

    # What came of it ---------------------------------------------------------------------------

    def _settled(
        self,
        batch: Sequence[Sighting],
        unproven: Sequence[Unproven],
        not_kept: int,
        answer: Mapping[str, Any],
        repeated: int,
    ) -> None:
        if repeated:
            self._queue.renew(batch[repeated:])
            batch = ()
        self._queue.settle(batch, unproven)
        set_reported(self._board, reported(self._board) + not_kept)
        set_last_report(self._board, self._clock.now())
        self._pauses.success()
        now = self._clock.uptime()
        if unproven or not_kept:
            self._unproven_due = now + self._settings.interval
        if repeated or len(batch) >= self._limit:
            self._due = now  # there is likely more
        if self._trouble:
            self._trouble = ""
            self._log("report", state="good", queued=self._queue.rows())
        if repeated:
            self._log(
                "report-trouble",
                state="restored",
                queued=self._queue.rows(),
                error="the queue is an older copy of itself: it goes on under a new identity",
                retry_in=0.0,
            )
        refused = answer["refused"]
        if refused:
            first = refused[0] if isinstance(refused[0], dict) else {}
            self._log("report-refused", count=len(refused), first=first.get("reason", "?"))

    def _too_large(
        self, batch: Sequence[Sighting], unproven: Sequence[Unproven], error: FeedError
    ) -> None:
        """Try half of it at once; the other half keeps for later."""
        if len(batch) > 1:
            self._queue.halve(batch)
            self._limit = (len(batch) + 1) // 2
            self._due = self._clock.uptime()
        elif unproven:
            # What may go another time is what makes it too large.
            self._unproven_due = self._clock.uptime() + _LONGEST_PAUSE
            self._due = self._clock.uptime()
        else:
            self._failed(error)

    def _failed(self, error: FeedError) -> None:
        at_least = 0.0
        if isinstance(error, FeedUnauthorized):
            at_least = _PAUSE_UNAUTHORIZED
        elif isinstance(error, FeedRateLimited):
            at_least = error.retry_after or 0.0
        pause = self._pauses.after_failure(at_least)
        self._due = self._clock.uptime() + pause
        state = next(name for kind, name in _STATES.items() if isinstance(error, kind))
        if state != self._trouble:
            self._trouble = state
            event = "report-denied" if state == "unauthorized" else "report-trouble"
            self._log(event, state=state, queued=self._queue.rows(), error=error, retry_in=pause)


def _read(response: HttpResponse) -> dict[str, Any]:
    """Read the answer to a settled report: what is not one must not empty the queue."""
    try:
        answer = json.loads(response.body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("refused"), list):
        raise FeedInvalid("the answer is not one of a feed that takes reports")
    return answer


def _repeated(answer: Mapping[str, Any], batch: Sequence[Sighting], *, is_new: bool) -> int:
    """Give how many sightings, from the first on, the feed wrongly took for others that it had.

    It tells them by their sequences. It has had a batch whole or not at all; of one that was never
    sent it can have had nothing, unless this queue was set back to an earlier state: by a restored
    backup, or a snapshot of the machine.
    """
    number = answer.get("repeated")
    if not isinstance(number, int) or not 0 < number <= len(batch):
        return 0
    return number if is_new or number < len(batch) else 0


def _sighting(one: Sighting) -> dict[str, Any]:
    return {
        "sequence": one.sequence,
        "at": one.at,
        "source": one.source,
        "transport": one.transport,
        "method": one.method,
        "tool": one.tool,
        "user_agent": one.user_agent,
        "dialled": one.dialled,
        "users": list(one.users),
        "count": one.count,
        "proof": one.proof,
    }


def _unproven(one: Unproven) -> dict[str, Any]:
    return {
        "source": one.source,
        "transport": one.transport,
        "method": one.method,
        "tool": one.tool,
        "user_agent": one.user_agent,
        "first": one.first,
        "last": one.last,
        "count": one.count,
    }
