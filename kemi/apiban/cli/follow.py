"""Where a walk over the feed's list stands that was asked for, by what the sync process reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from apiban.cli.show import ago, many, span
from apiban.store import FEED_SOURCE, Store
from apiban.sync.report import SyncReport

__all__ = ["Outcome", "Standing", "Walk", "pause_of", "what_ails"]

_NO_ANSWER: Final = 15.0  # a tick of the sync comes five times a second
_TROUBLE: Final = ("no-key", "outage", "invalid", "unauthorized", "rate-limited")


@dataclass(frozen=True, slots=True)
class Standing:
    """``state``: what is to be done about it; ``text`` is for people.

    ``seen`` counts what the walk met, ``total`` is how many there will be, as far as one knows.
    """

    state: Literal["working", "waiting", "done", "failed"]
    text: str
    seen: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of the list when a walk is at its end. Times are in seconds since 1970."""

    entries: int
    complete_at: float | None
    pass_ended: float | None
    held: int

    @classmethod
    def reported(cls, report: SyncReport) -> Outcome:
        """Give what the process that syncs says."""
        return cls(report.entries, report.complete_at, report.pass_ended, report.held)

    @classmethod
    def stored(cls, store: Store, identity: str) -> Outcome:
        """Give what a process stored that ended."""
        state = store.feed(FEED_SOURCE, identity)
        return cls(store.count(FEED_SOURCE), state.complete_at, state.pass_ended, state.held)

    def answers(self, asked: float, *, full: bool) -> bool:
        """Tell whether the list, or with ``full`` a pass, was complete since it was asked for."""
        ended = self.pass_ended if full else self.complete_at
        return ended is not None and ended >= asked

    def __str__(self) -> str:
        text = f"the list is complete: {many(self.entries, 'address', 'addresses')}"
        held = "; a pass is held back: apiban feed hold show says more" if self.held else ""
        return text + held


class Walk:
    """A walk that was asked for at ``asked``, in seconds since 1970; ``full``: from the start.

    ``length`` is the list's so far, where one is known; ``before`` is the report before that;
    ``own`` tells that this command is the sync process itself. ``begun`` is when it was put to who
    syncs now, if that is another one than first.
    """

    def __init__(  # noqa: PLR0913 - each is one fact of it
        self,
        *,
        full: bool,
        asked: float,
        length: int | None,
        before: SyncReport | None = None,
        own: bool = False,
        begun: float | None = None,
    ) -> None:
        self._full = full
        self._asked = asked
        self._begun = asked if begun is None else begun
        self._length = length
        self._own = own
        self._was_well = before is None or before.feed not in _TROUBLE
        self._taken: float | None = None

    def look(self, report: SyncReport | None, *, taken: bool, now: float) -> Standing:
        """Judge a report; ``taken`` tells whether the sync process took the task."""
        if taken and self._taken is None:
            self._taken = now
        if report is None or self._taken is None:
            return self._not_yet(now)
        # A report is written again when it says something else: an old one may still be true.
        trouble = self._trouble(report, now) if report.at >= self._taken else ""
        if trouble:
            return Standing("failed", trouble)
        outcome = Outcome.reported(report)
        if outcome.answers(self._asked, full=self._full):
            return Standing("done", str(outcome))
        wait = (report.next_request_at or now) - now
        if report.budget_left == 0 and wait > 0:
            rule = f"{report.budget} requests in {span(report.window)}"
            text = f"the rate limit ({rule}) makes it wait {span(wait)}"
            return Standing("waiting", text, report.pass_seen, self._length)
        if report.pass_started is None:
            return Standing("working", "asking the feed for what is new")
        text = "walking over the list"
        if report.pass_seen:
            text += f": {many(report.pass_seen, 'address', 'addresses')}"
        return Standing("working", text, report.pass_seen, self._length)

    def _not_yet(self, now: float) -> Standing:
        if now - (self._taken or self._begun) < _NO_ANSWER:
            own = "no sync process runs: this command is it"
            return Standing("waiting", own if self._own else "waiting for the sync process")
        return Standing("failed", "the sync process does not answer; apiban doctor says more")

    def _trouble(self, report: SyncReport, now: float) -> str:
        """Say why the walk does not come to its end; empty while it may."""
        for error in (report.settings_error, report.store_error):
            if error:
                return error
        if report.feed in _TROUBLE and self._is_new(report, now):
            return what_ails(report) if self._own else pause_of(report, now)
        if report.held_back == "growth-held":
            count = many(report.waiting, "new entry", "new entries")
            return f"held back: {count} at once; apiban feed hold show says more"
        if report.held_back:
            return (
                "the feed's list is longer than feed.max_entries; apiban feed hold show says more"
            )
        return ""

    def _is_new(self, report: SyncReport, now: float) -> bool:
        """Tell whether the feed was asked since, not whether it still waits for its first turn."""
        if self._was_well or report.feed in {"no-key", "rate-limited"}:
            return True
        pause = (report.next_request_at or now) - report.at
        waited = now - (self._taken or now)
        return pause > 1 and (report.budget_left > 0 or waited > report.window)


def pause_of(report: SyncReport, now: float) -> str:
    """Say what is wrong with the feed, and when it is asked again."""
    again = report.next_request_at
    when = f"; asked again {ago(again, now)}" if again is not None and again > now else ""
    return what_ails(report) + when


def what_ails(report: SyncReport) -> str:
    """Say what is wrong with the feed."""
    if report.feed == "no-key":
        return "no key is set (feed.key, or APIBAN_KEY); the last list stays in force"
    why = f": {report.error}" if report.error else ""
    return f"the feed: {report.feed}{why}; the last list stays in force"
