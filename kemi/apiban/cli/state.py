"""What ``apiban status`` and ``apiban top`` know of the node, gathered once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from apiban.cli.host import Host
from apiban.cli.kernel import Kernel, kernel
from apiban.cli.look import Look, Rates, rates
from apiban.cli.published import Published, published
from apiban.errors import StoreError
from apiban.settings import Mode, Settings
from apiban.store import FEED_SOURCE, FeedState, ModeOverride, Store, overriding_mode
from apiban.sync.budget import Budget
from apiban.sync.report import SyncReport

__all__ = ["State", "Stock", "gather"]


@dataclass(frozen=True, slots=True)
class Stock:
    """What the store says. ``overdue`` counts the feed's entries that it should have renewed.

    ``budget_left`` is how many requests may be sent now, ``changes`` the number of the journal's
    latest change, ``known`` that up to which the published list has them. ``other`` says that the
    sync process works with another store.
    """

    sources: dict[str, int]
    feed: FeedState
    overdue: int
    budget_left: int
    changes: int
    known: int
    other: str


@dataclass(frozen=True, slots=True)
class State:
    """The node at ``now``, in seconds since 1970.

    ``override`` is the operator's mode, if it goes before that of the settings. ``stock`` is None
    when the store cannot be read: ``store_error`` says why. ``first`` and
    ``last`` are looks at the board, None where no Kamailio runs; they are the same one where
    nobody waited, and then ``rates`` and ``behind``, the workers with an older list, are None.
    ``silence`` is for how many seconds the sync process took no tick, None where that is not known;
    ``mistake`` is one in the settings, while ``settings`` are others. ``kernel`` is what the
    firewall client says, None where none ever ran.
    """

    now: float
    settings: Settings
    override: ModeOverride | None
    stock: Stock | None
    store_error: str
    report: SyncReport | None
    published: Published | None
    started: int | None
    first: Look | None
    last: Look | None
    rates: Rates | None = None
    behind: int | None = None
    silence: float | None = None
    mistake: str = ""
    kernel: Kernel | None = None

    @property
    def mode(self) -> Mode:
        """The mode in force: the operator's, else the settings'."""
        return self.settings.mode if self.override is None else self.override.mode

    def then(self, last: Look, behind: int) -> State:
        """Give what a later look at the board adds, and the workers that are behind by now."""
        if self.first is None:
            return self
        return replace(self, last=last, rates=rates(self.first, last), behind=behind)


def gather(host: Host, first: Look | None) -> State:
    """Gather all but the second look.

    Raises:
        SettingsError

    """
    now, report = host.clock.now(), host.report()
    stock, store_error = None, ""
    try:
        override = host.override()
        stock = _stock(host, host.store, now, report)
    except StoreError as error:
        store_error = str(error)
        override = overriding_mode(host.store_path, now, host.settings.mode)
    board = host.board
    return State(
        now=now,
        settings=host.settings,
        override=override,
        stock=stock,
        store_error=store_error,
        report=report,
        published=published(host),
        started=None if board is None else board.started,
        first=first,
        last=first,
        silence=host.silence(),
        mistake=host.mistake,
        kernel=kernel(host),
    )


def _stock(host: Host, store: Store, now: float, report: SyncReport | None) -> Stock:
    feed = host.settings.feed
    budget = Budget(store, host.clock, FEED_SOURCE, limit=feed.requests, window=feed.window)
    # The sync's own patience: while the feed answers, the next poll renews or removes them.
    patience = 2 * feed.interval if report is not None and report.feed == "ok" else 0.0
    due = store.next_expiry(FEED_SOURCE)
    return Stock(
        sources=store.count_by_source(),
        feed=store.feed(FEED_SOURCE, feed.identity),
        overdue=store.count_expired(FEED_SOURCE, now)
        if due is not None and due <= now - patience
        else 0,
        budget_left=budget.left(),
        changes=store.position(),
        known=host.known(),
        other=host.other_store(),
    )
