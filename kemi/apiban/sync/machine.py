"""The sync's state machine: each tick does a small piece of work and returns.

Two walks go over the feed's list, taking turns within one budget:

- the *live* walk asks for what came after its cursor, then rests for ``feed.interval``;
- the *full pass* walks the whole list from its start, and at its end removes what the feed no
  longer lists. The first pass loads the list; later ones reconcile it.

A ban is ``feed.ban_for`` long, counted from the last listing. An entry whose time is over goes
when the feed has given a complete answer since, that is, when it had the chance to renew it; at
the latest ``feed.stale_max`` after its time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from apiban.clock import Clock
from apiban.errors import FeedError, FeedInvalid, FeedRateLimited, FeedUnauthorized
from apiban.feed.answer import FROM_START, EndOfList, Page
from apiban.feed.client import Feed
from apiban.log import Log
from apiban.settings.model import FeedSettings
from apiban.store import FEED_SOURCE, FeedState, Store
from apiban.sync.budget import Budget
from apiban.sync.exchange import Exchange
from apiban.sync.growth import Growth
from apiban.sync.pauses import Pauses
from apiban.sync.report import Health
from apiban.sync.sanity import sift

__all__ = ["Sync"]

Walk = Literal["live", "pass"]

# A held pass is confirmed or refuted by the next one, which need not wait for a day.
_HELD_RETRY: Final = 3600.0
_REFUSED_RETRY: Final = 900.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A page that was not taken: why, how many new entries it has, and when it is asked again."""

    why: Literal["growth-held", "too-long"]
    new: int
    until: float


class Sync:
    """Syncs one feed into the store; ``changed`` is called when the list is another one."""

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        *,
        settings: FeedSettings,
        feed: Feed,
        store: Store,
        clock: Clock,
        exchange: Exchange,
        changed: Callable[[], None],
        log: Log,
        jitter: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._feed = feed
        self._store = store
        self._clock = clock
        self._exchange = exchange
        self._changed = changed
        self._log = log
        self._budget = Budget(
            store, clock, FEED_SOURCE, limit=settings.requests, window=settings.window
        )
        self._pauses = Pauses(jitter)
        self._state = store.feed(FEED_SOURCE, settings.identity)
        self._health: Health = "unknown"
        self._asked: tuple[Walk, int] | None = None  # the question under way, and its number
        self._last_walk: Walk = "pass"
        # Uptimes from which something is due.
        self._ask_from = 0.0
        self._live_from = 0.0
        self._expire_from = 0.0
        self._stale_said = False
        # Walks that met a list longer than allowed, and rest.
        self._refused: dict[Walk, _Refusal] = {}
        self._growth = Growth(clock, settings.max_growth)
        self._full_pass_asked = False
        self._pass_seen = 0  # entries that the pass under way met
        if self._state.pass_started is not None:
            self._pass_seen = store.count(FEED_SOURCE) - store.count_unseen(
                FEED_SOURCE, pass_number=self._state.pass_number
            )
        self._error = ""  # what the feed's trouble is, while it has one

    @property
    def state(self) -> FeedState:
        """Where the sync stands, as the store has it."""
        return self._state

    @property
    def health(self) -> Health:
        """How the feed answered last."""
        return self._health

    @property
    def error(self) -> str:
        """What is wrong with the feed; empty when nothing is."""
        return self._error

    @property
    def budget_left(self) -> int:
        """How many requests the rate limit leaves now."""
        return self._budget.left()

    @property
    def waiting(self) -> int:
        """How many new entries are held back, since the list would grow too fast."""
        # Both walks come to the same entries.
        held = [one.new for one in self._refused.values() if one.why == "growth-held"]
        return max(held, default=0)

    @property
    def held_back(self) -> str:
        """Why pages are not taken: "growth-held", "too-long"; empty while they are."""
        return min((one.why for one in self._refused.values()), default="")

    @property
    def pass_seen(self) -> int:
        """How many entries the pass under way, or the last one, met so far."""
        return self._pass_seen

    def next_request_in(self) -> float | None:
        """Give the seconds until the feed is asked next; None while it cannot be, without a key."""
        if not self._settings.key:
            return None
        now = self._clock.uptime()
        from_ = [max(now if self._pass_due() else now + self._pass_in(), self._rests_until("pass"))]
        if self._state.cursor is not None:
            from_.append(max(self._live_from, self._rests_until("live")))
        return max(min(from_) - now, self._ask_from - now, self._budget.wait(), 0.0)

    def ask_now(self, *, full: bool) -> None:
        """Ask as soon as the rate limit allows, also while a pause runs; ``full``: from the start.

        A pass that is under way goes on. A pause that the feed itself asked for is kept.
        """
        if full and self._state.pass_started is None:
            self._full_pass_asked = True
        self._live_from = 0.0
        self._rest_no_more()
        if self._health != "rate-limited":
            self._ask_from = 0.0

    def accept_hold(self) -> None:
        """Do what is held back, since the operator says that it is right."""
        if self.waiting:
            self._growth.accept(self.waiting)
            self._rest_no_more()
        if not self._state.held:
            return
        # The pass that was held is the last that ended; what was listed since counts as seen.
        number = self._state.pass_number - (self._state.pass_started is not None)
        self._state = replace(self._state, held=0, held_since=None)
        removed = self._store.remove_unseen(
            FEED_SOURCE, state=self._state, now=self._clock.now(), pass_number=number
        )
        total = self._store.count(FEED_SOURCE)
        self._log("pass-end", number=number, total=total, removed=removed)
        self._changed()

    def tick(self) -> None:
        """Do what is due: take an answer, remove what expired, ask one question.

        Raises:
            StoreError: the store failed; what was under way is asked again later.

        """
        self._take_answer()
        self._expire()
        if self._asked is None:
            self._ask()

    # Asking ------------------------------------------------------------------------------------

    def _ask(self) -> None:
        if not self._settings.key:
            self._turn("no-key")
            return
        if self._clock.uptime() < self._ask_from:
            return
        walk = self._next_walk()
        if walk is None or self._budget.wait() > 0:
            return
        cursor = self._cursor(walk)
        number = self._budget.spend(self._settings.timeout)
        if number is None:  # another process has just spent the last one
            return
        self._asked = (walk, number)
        self._last_walk = walk
        self._exchange.ask(lambda: self._feed.banned(cursor))

    def _next_walk(self) -> Walk | None:
        """Choose which walk takes the next step; they alternate when both could."""
        now = self._clock.uptime()
        live = self._state.cursor is not None and now >= self._live_from
        live = live and now >= self._rests_until("live")
        full = self._pass_due() and now >= self._rests_until("pass")
        if live and full:
            return "pass" if self._last_walk == "live" else "live"
        return "live" if live else "pass" if full else None

    def _pass_due(self) -> bool:
        state = self._state
        if self._full_pass_asked or state.pass_started is not None or state.pass_ended is None:
            return True
        return self._pass_in() <= 0

    def _pass_in(self) -> float:
        """Give the seconds until the next full pass; 0 or less when it is due."""
        every = self._settings.reconcile_every
        if self._state.held:
            every = min(every, _HELD_RETRY)
        age = self._clock.now() - (self._state.pass_ended or 0.0)
        # A clock set back makes the age negative: a pass too many is harmless, one too few not.
        return every - age if age >= 0 else 0.0

    def _cursor(self, walk: Walk) -> str:
        if walk == "live":
            return self._state.cursor or FROM_START
        if self._state.pass_started is None:
            self._state = replace(
                self._state,
                pass_number=self._state.pass_number + 1,
                pass_started=self._clock.now(),
                pass_cursor=None,
            )
            self._store.save_feed(FEED_SOURCE, self._state)
            self._full_pass_asked, self._pass_seen = False, 0
            self._log("pass-begin", number=self._state.pass_number)
        return self._state.pass_cursor or FROM_START

    # Taking answers ----------------------------------------------------------------------------

    def _take_answer(self) -> None:
        if self._asked is None:
            return
        answer = self._exchange.answer()
        if answer is None:
            return
        (walk, number), self._asked = self._asked, None
        self._budget.settle(number)
        if isinstance(answer, Page):
            self._take_page(walk, answer)
        elif isinstance(answer, EndOfList):
            self._recovered()
            self._end_of_list(walk)
        else:
            self._failed(answer)

    def _take_page(self, walk: Walk, page: Page) -> None:
        self._recovered()
        networks, refused = sift(page.networks, self._settings)
        new = self._store.count_new(FEED_SOURCE, networks)
        length = self._store.count(FEED_SOURCE)
        if new and length + new > self._settings.max_entries:
            limit = f"the list is longer than feed.max_entries, {self._settings.max_entries}"
            self._refuse(walk, "too-long", new, limit)
            return
        if new and self._state.pass_ended is not None and not self._growth.may_grow(length, new):
            share = self._settings.max_growth
            self._refuse(walk, "growth-held", new, f"more than {share:.0%} new in a day")
            return
        self._growth.took(new)
        self._refused.pop(walk, None)
        now = self._clock.now()
        if walk == "live":
            state = replace(self._state, cursor=page.cursor)
        else:
            state = replace(self._state, pass_cursor=page.cursor)
            self._pass_seen += len(networks)
        self._store.record_page(
            FEED_SOURCE,
            networks,
            listed=now,
            expires=now + self._settings.ban_for,
            state=state,
        )
        self._state = state
        self._live_from = self._clock.uptime() if walk == "live" else self._live_from
        self._log("page", walk=walk, listed=len(networks), new=new, refused=len(refused))
        if refused:
            first = refused[0]
            self._log(
                "entries-refused", count=len(refused), first=first.network, reason=first.reason
            )
        self._expire_from = 0.0
        self._changed()

    def _refuse(
        self, walk: Walk, why: Literal["growth-held", "too-long"], new: int, error: str
    ) -> None:
        """Take nothing of this page; the other walk is not to blame, and goes on."""
        last = self._refused.get(walk)
        if last is None or last.why != why:
            self._log(
                "feed-trouble",
                state=why,
                entries=self._store.count(FEED_SOURCE),
                error=error,
                retry_in=_REFUSED_RETRY,
            )
        self._refused[walk] = _Refusal(why, new, self._clock.uptime() + _REFUSED_RETRY)

    def _rests_until(self, walk: Walk) -> float:
        """Give the uptime until which a walk rests that met a list longer than allowed."""
        refused = self._refused.get(walk)
        return 0.0 if refused is None else refused.until

    def _rest_no_more(self) -> None:
        self._refused = {walk: replace(one, until=0.0) for walk, one in self._refused.items()}

    def _end_of_list(self, walk: Walk) -> None:
        now = self._clock.now()
        self._refused.pop(walk, None)
        self._state = replace(self._state, complete_at=now)
        if walk == "pass":
            self._end_pass(now)
        else:
            self._store.save_feed(FEED_SOURCE, self._state)
        self._live_from = self._clock.uptime() + self._settings.interval
        self._expire_from = 0.0

    def _end_pass(self, now: float) -> None:
        number = self._state.pass_number
        total = self._store.count(FEED_SOURCE)
        unseen = self._store.count_unseen(FEED_SOURCE, pass_number=number)
        self._state = replace(
            self._state,
            # The pass knows best where the list ends, also when the feed began its IDs anew.
            cursor=self._state.pass_cursor or self._state.cursor or FROM_START,
            pass_cursor=None,
            pass_started=None,
            pass_ended=now,
        )
        if unseen > total / 2 and not self._is_confirmed(now):
            self._store.save_feed(FEED_SOURCE, self._state)
            if self._state.held == 1:  # said once, when it begins
                self._log(
                    "pass-held",
                    number=number,
                    total=total,
                    would_remove=unseen,
                    passes_asked_for=self._settings.confirm_passes,
                    over=self._settings.confirm_after,
                )
            return
        self._state = replace(self._state, held=0, held_since=None)
        removed = self._store.remove_unseen(FEED_SOURCE, state=self._state, now=now)
        self._log("pass-end", number=number, total=total - removed, removed=removed)
        if removed:
            self._changed()

    def _is_confirmed(self, now: float) -> bool:
        """Count a pass that would remove too much; enough of them, over long enough, are right."""
        held, since = self._state.held + 1, self._state.held_since
        since = now if since is None or since > now else since
        self._state = replace(self._state, held=held, held_since=since)
        return held >= self._settings.confirm_passes and now - since >= self._settings.confirm_after

    # Health ------------------------------------------------------------------------------------

    def _recovered(self) -> None:
        self._pauses.success()
        self._ask_from = 0.0
        self._turn("ok")

    def _failed(self, error: FeedError) -> None:
        health: Health = "outage"
        at_least = 0.0
        if isinstance(error, FeedUnauthorized):
            health, at_least = "unauthorized", self._settings.retry_unauthorized
        elif isinstance(error, FeedRateLimited):
            health, at_least = "rate-limited", error.retry_after or self._settings.window
        elif isinstance(error, FeedInvalid):
            health = "invalid"
        pause = self._pauses.after_failure(at_least)
        if health == "rate-limited":
            self._budget.rest(pause)
        self._ask_from = self._clock.uptime() + pause
        self._turn(health, error=error, retry_in=pause)

    def _turn(self, health: Health, **details: object) -> None:
        """Say it once when the feed's health becomes another one."""
        self._error = str(details.get("error", ""))
        if health == self._health:
            return
        self._health = health
        if health == "ok":
            self._log("feed", state="ok", entries=self._store.count(FEED_SOURCE))
        elif health == "no-key":
            self._log("feed-no-key", entries=self._store.count(FEED_SOURCE), set="APIBAN_KEY")
        else:
            entries = self._store.count(FEED_SOURCE)
            self._log("feed-trouble", state=health, entries=entries, **details)

    # Expiry ------------------------------------------------------------------------------------

    def _expire(self) -> None:
        if self._clock.uptime() < self._expire_from:
            return
        self._expire_from = self._clock.uptime() + 1.0
        now = self._clock.now()
        until = max(min(self._state.complete_at or 0.0, now), now - self._settings.stale_max)
        due = self._store.next_expiry(FEED_SOURCE)
        if due is not None and due <= until:
            gone = self._store.remove_expired(FEED_SOURCE, until=until, now=now)
            self._log("expired", count=gone)
            self._changed()
            due = self._store.next_expiry(FEED_SOURCE)
        stale = due is not None and due <= now - self._patience()
        if stale and not self._stale_said:
            count = self._store.count_expired(FEED_SOURCE, now)
            self._log("stale", kept=count, for_up_to=self._settings.stale_max)
        self._stale_said = stale

    def _patience(self) -> float:
        """Give the seconds that an expired entry waits for the next poll when all is well."""
        return 2 * self._settings.interval if self._health == "ok" else 0.0
