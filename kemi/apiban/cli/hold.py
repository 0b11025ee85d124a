"""``apiban feed hold``: what the sync does not take from the feed, and the word to take it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import click

from apiban.cli import force
from apiban.cli.host import Host, pass_host
from apiban.cli.show import ago, many, span, write_json
from apiban.cli.syncer import somebody_syncs
from apiban.cli.words import when
from apiban.errors import ApibanError
from apiban.store import FEED_SOURCE, Store

__all__ = ["hold"]

_SAMPLE: Final = 10
_POLL: Final = 0.05
_AT_MOST: Final = 15.0


@dataclass(frozen=True, slots=True)
class _Held:
    """A complete pass that would remove ``count`` of ``total``; ``passes`` in a row did."""

    number: int
    passes: int
    since: float | None
    count: int
    total: int


@click.group()
def hold() -> None:
    """See what this host's sync holds back of the feed's list, and accept it."""


@hold.command()
@click.option("--all", "whole", is_flag=True, help="Every address that would go, not a few.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@pass_host
def show(host: Host, /, *, whole: bool, as_json: bool) -> None:
    """Show a pass that would remove too much, or growth that is too fast."""
    held = _held_pass(host, host.store)
    report = host.report()
    held_back = "" if report is None else report.held_back
    waiting = 0 if report is None else report.waiting
    gone: list[str] = []
    if held is not None:
        limit = -1 if whole else _SAMPLE
        networks = host.store.unseen(FEED_SOURCE, pass_number=held.number, limit=limit)
        gone = [str(one) for one in networks]
    if as_json:
        write_json(
            {
                "pass": None
                if held is None
                else {
                    "number": held.number,
                    "passes": held.passes,
                    "since": held.since,
                    "would_remove": held.count,
                    "total": held.total,
                    "addresses": gone,
                },
                "growth": None if held_back != "growth-held" else {"waiting": waiting},
                "too_long": held_back == "too-long",
            }
        )
        return
    feed = host.settings.feed
    if held is not None:
        _say_pass(host, held, gone)
    if held_back == "growth-held":
        click.echo(
            f"held: a page with {many(waiting, 'new address', 'new addresses')} is not taken, "
            f"for the list would grow\nby more than {feed.max_growth:.0%} in a day "
            "(feed.max_growth). To take it now: apiban feed hold accept"
        )
    elif held_back:
        click.echo(
            f"held: the feed's list is longer than {feed.max_entries:,} (feed.max_entries): "
            "what is new\nis not taken until that setting is raised"
        )
    elif held is None:
        click.echo("nothing is held")


def _say_pass(host: Host, held: _Held, gone: list[str]) -> None:
    feed = host.settings.feed
    if held.since is not None:
        click.echo(f"held since {when(held.since)} UTC ({ago(held.since, host.clock.now())}):")
    click.echo(
        f"a full pass that would remove {held.count:,} of {held.total:,} addresses; "
        "they stay banned meanwhile.\n"
        f"{many(held.passes, 'pass', 'passes')} said so; {feed.confirm_passes} in a row over "
        f"{span(feed.confirm_after)} confirm it (feed.confirm_passes, feed.confirm_after).\n"
        "To remove them now: apiban feed hold accept"
    )
    for one in gone:
        click.echo(f"  {one}")
    if held.count > len(gone):
        click.echo(f"  and {held.count - len(gone):,} more (--all)")


@hold.command()
@force.outcome_options
@pass_host
def accept(host: Host, /, *, waits: bool, as_json: bool) -> None:
    """Do what is held back: remove what the feed no longer lists, or take what is new."""
    store = host.store_to_write()
    held, report = _held_pass(host, store), host.report()
    waiting = report.waiting if report is not None else 0
    if held is None and not waiting:
        if report is not None and report.held_back == "too-long":
            raise ApibanError("the list is too long: raise feed.max_entries in the settings")
        raise ApibanError("nothing is held")
    before = store.count(FEED_SOURCE)
    number = store.add_task("accept-hold", now=host.clock.now())
    running = somebody_syncs(host.settings.paths.state)
    done = waits and running and _is_taken(store, number)
    in_force = force.wait(host, store, waits=True) if done else None
    # New pages of the feed may have come in meanwhile.
    removed = max(before - store.count(FEED_SOURCE), 0) if done and held else None
    if as_json:
        write_json(
            {
                "taken": done,
                "removed": removed,
                "growth_accepted": waiting,
                "in_force": force.document(in_force),
            }
        )
        force.end(in_force)
        return
    if not running:
        click.echo(
            "apiban: stored: no sync process runs; the next one, or apiban sync, does it", err=True
        )
    elif not done:
        click.echo("asked; apiban feed hold show tells when it is done")
    if removed is not None:
        click.echo(f"{removed:,} of {before:,} addresses removed")
    if done and waiting:
        share = host.settings.feed.max_growth
        click.echo(
            f"growth accepted: {many(waiting, 'address', 'addresses')}, and for a day as many more "
            f"as {share:.0%} of the list\n(feed.max_growth), 1,000 at least; what is beyond that "
            "is held again"
        )
    force.say(in_force)


def _held_pass(host: Host, store: Store) -> _Held | None:
    """Look at the last complete pass: it is the one that is held, if any is."""
    state = store.feed(FEED_SOURCE, host.settings.feed.identity)
    if not state.held:
        return None
    number = state.pass_number - (state.pass_started is not None)
    return _Held(
        number=number,
        passes=state.held,
        since=state.held_since,
        count=store.count_unseen(FEED_SOURCE, pass_number=number),
        total=store.count(FEED_SOURCE),
    )


def _is_taken(store: Store, number: int) -> bool:
    """Wait until the sync process did it.

    Raises:
        ApibanError: it does not answer.

    """
    give_up = time.monotonic() + _AT_MOST
    while not store.task_taken(number):
        if time.monotonic() >= give_up:
            raise ApibanError("the sync process does not answer; apiban doctor says more")
        time.sleep(_POLL)
    return True
