"""``apiban sync``: ask the feed now, through the process that syncs, or as that process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

import click

from apiban.cli import force
from apiban.cli.follow import Outcome, Standing, Walk, pause_of
from apiban.cli.forever import sync_forever
from apiban.cli.host import Host, pass_host
from apiban.cli.in_force import InForce, wait_in_force
from apiban.cli.show import console, printable, terminal, write_json
from apiban.cli.syncer import Syncer, somebody_syncs
from apiban.errors import ApibanError
from apiban.journal import make_journal
from apiban.store import FEED_SOURCE, Store
from apiban.sync.report import SyncReport

__all__ = ["sync"]

_TICK: Final = 0.2
_SAY_EVERY: Final = 10.0  # seconds between lines that say the same with other numbers

Show = Callable[[Standing], None]


@click.command()
@click.option("--full", is_flag=True, help="Walk over the whole list, and remove what it has not.")
@click.option("--now", "at_once", is_flag=True, help="End the pause after a failure of the feed.")
@click.option("--forever", is_flag=True, help="Be the sync process until SIGTERM: for a service.")
@force.outcome_options
@pass_host
def sync(  # noqa: PLR0913 - each is one thing that an operator chooses
    host: Host, /, *, full: bool, at_once: bool, forever: bool, waits: bool, as_json: bool
) -> None:
    """Ask the feed for what is new, as soon as the rate limit allows, and wait for the list's end.

    The running sync process does it; where none runs, this command is that process for a while, or
    with --forever until it is told to end.
    """
    if forever:
        if full or at_once or as_json or not waits:
            raise click.UsageError("--forever goes with no other option")
        _must_be_able(host)
        sync_forever(host, make_journal())
        return
    running = somebody_syncs(host.settings.paths.state)
    if not running:
        _must_be_able(host)
    if not running and not waits:
        raise ApibanError("no sync process runs: without --no-wait this command is it")
    store = host.store_to_write()
    began = time.monotonic()
    if running:
        _let_rest(host.report(), host.clock.now(), at_once=at_once)
    if not waits:
        _ask(host, store, full=full)
        _say_asked(as_json=as_json)
        return
    outcome, running = _see_to_it(host, store, full=full, as_json=as_json)
    in_force = wait_in_force(host, store) if running else None
    if as_json:
        write_json(_document(outcome, in_force, time.monotonic() - began, asked=running))
        force.end(in_force)
        return
    click.echo(printable(str(outcome)))
    force.say(in_force)


def _must_be_able(host: Host) -> None:
    """Make sure that this command can be the sync process; who runs may have another key.

    Raises:
        SettingsError: the settings have a mistake.
        ApibanError: there is no key.

    """
    if not host.load().feed.key:
        raise ApibanError("no key is set (feed.key, or APIBAN_KEY): the feed answers nobody")


def _see_to_it(host: Host, store: Store, *, full: bool, as_json: bool) -> tuple[Outcome, bool]:
    """Have it done by who syncs, or do it; tell whether it was the former.

    Both may change meanwhile: another ``apiban sync`` ends, or was quicker to take the lock.

    Raises:
        ApibanError: it cannot be done.

    """
    asked = host.clock.now()
    while True:
        running = somebody_syncs(host.settings.paths.state)
        if running:
            standing, report = _watch_it(host, store, full=full, asked=asked, as_json=as_json)
        else:
            _must_be_able(host)
            standing, report = _be_it(host, store, full=full, asked=asked, as_json=as_json)
        if standing is None:
            stored = Outcome.stored(store, host.settings.feed.identity)
            if stored.answers(asked, full=full):
                return stored, running
        elif standing.state == "failed" or report is None:
            raise ApibanError(standing.text)
        else:
            return Outcome.reported(report), running


def _let_rest(before: SyncReport | None, now: float, *, at_once: bool) -> None:
    """Leave a feed alone that failed, unless the operator says now.

    Raises:
        ApibanError: a pause runs.

    """
    if before is None or before.feed not in {"outage", "invalid", "unauthorized", "rate-limited"}:
        return
    if before.next_request_at is None or before.next_request_at <= now:
        return
    if before.feed == "rate-limited":  # the feed asked for the pause: nothing shortens it
        raise ApibanError(pause_of(before, now))
    if not at_once:
        raise ApibanError(f"{pause_of(before, now)}; --now asks at once")


def _ask(host: Host, store: Store, *, full: bool) -> tuple[int, float]:
    """Leave a task; give its number, and when."""
    now = host.clock.now()
    return store.add_task("full-pass" if full else "sync", now=now), now


def _length(host: Host, store: Store) -> int | None:
    """Give the list's length so far; None before the first pass ended."""
    state = store.feed(FEED_SOURCE, host.settings.feed.identity)
    return None if state.pass_ended is None else store.count(FEED_SOURCE)


def _watch_it(
    host: Host, store: Store, *, full: bool, asked: float, as_json: bool
) -> tuple[Standing | None, SyncReport | None]:
    """Wait until the running sync process has done it; no standing: it ended.

    That of a Kamailio is waited for: it starts again.
    """
    number, begun = _ask(host, store, full=full)
    walk = Walk(
        full=full,
        asked=asked,
        length=_length(host, store),
        before=host.report(),
        begun=begun,
    )
    try:
        with _shown(as_json=as_json) as show:
            return _follow(
                host,
                walk,
                lambda: store.task_taken(number),
                host.report,
                show,
                goes_on=lambda: host.board is not None or somebody_syncs(host.settings.paths.state),
            )
    except KeyboardInterrupt:
        click.echo("apiban: the sync process goes on; apiban status shows how", err=True)
        raise


def _be_it(
    host: Host, store: Store, *, full: bool, asked: float, as_json: bool
) -> tuple[Standing | None, SyncReport | None]:
    """Sync in this process until the walk is complete; no standing: another one was quicker."""
    syncer = Syncer(host)
    try:
        number, begun = _ask(host, store, full=full)
        walk = Walk(full=full, asked=asked, length=_length(host, store), own=True, begun=begun)
        with _shown(as_json=as_json) as show:
            show(walk.look(None, taken=False, now=begun))
            return _follow(
                host,
                walk,
                lambda: store.task_taken(number),
                syncer.report,
                show,
                tick=syncer.tick,
                goes_on=lambda: syncer.has_lock or not somebody_syncs(host.settings.paths.state),
            )
    finally:
        syncer.close()


def _follow(  # noqa: PLR0913 - what it looks at, and where it shows it
    host: Host,
    walk: Walk,
    taken: Callable[[], bool],
    report: Callable[[], SyncReport | None],
    show: Show,
    *,
    goes_on: Callable[[], bool],
    tick: Callable[[], None] = lambda: None,
) -> tuple[Standing | None, SyncReport | None]:
    """Look until the walk is at its end, or cannot come to it; no standing: nobody goes on."""
    while True:
        tick()
        latest = report()
        standing = walk.look(latest, taken=taken(), now=host.clock.now())
        if standing.state in ("done", "failed"):
            return standing, latest
        if not goes_on():
            return None, None
        show(standing)
        _pause()


def _pause() -> None:
    time.sleep(_TICK)


# Showing it ------------------------------------------------------------------------------------


def _shown(*, as_json: bool) -> AbstractContextManager[Show]:
    """Give where the standing is shown: a bar on a terminal, lines elsewhere, for JSON nowhere."""
    if as_json:
        return nullcontext(lambda _: None)
    return _bar() if terminal() else nullcontext(_Lines())


class _Lines:
    """A line when something else is to be said, and now and then with new numbers."""

    def __init__(self) -> None:
        self._said = ""
        self._at = 0.0

    def __call__(self, standing: Standing) -> None:
        kind = standing.state + standing.text[:12]
        now = time.monotonic()
        if kind != self._said or now - self._at >= _SAY_EVERY:
            self._said, self._at = kind, now
            click.echo(printable(standing.text))


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - see show.py

    with Progress(
        BarColumn(30), TextColumn("{task.description}"), console=console(), transient=True
    ) as progress:
        task = progress.add_task("", total=None)

        def show(standing: Standing) -> None:
            total = None if standing.total is None else max(standing.total, standing.seen)
            progress.update(task, description=standing.text, completed=standing.seen, total=total)

        yield show


def _say_asked(*, as_json: bool) -> None:
    if as_json:
        write_json(_document(None, None, None, asked=True))
    else:
        click.echo("asked; apiban status shows how it goes")


def _document(
    outcome: Outcome | None, in_force: InForce | None, seconds: float | None, *, asked: bool
) -> dict[str, object]:
    """Give it for machines; ``asked`` tells that the running sync process did it, or shall."""
    return {
        "complete": outcome is not None,
        "asked": asked,
        "entries": outcome and outcome.entries,
        "complete_at": outcome and outcome.complete_at,
        "pass_ended": outcome and outcome.pass_ended,
        "pass_held": outcome and outcome.held > 0,
        "seconds": seconds,
        "in_force": force.document(in_force),
    }
