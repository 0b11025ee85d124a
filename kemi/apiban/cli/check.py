"""``apiban check``: one address, for scripts."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import click
from click.exceptions import Exit

from apiban.address import Network
from apiban.cli.host import Host, pass_host
from apiban.cli.show import HOST, ago, printable, span, write_json
from apiban.errors import ApibanError, FeedRateLimited
from apiban.store import FEED_SOURCE
from apiban.sync.budget import Budget
from apiban.verdict.explain import Verdict, explain

__all__ = ["BANNED", "check", "look_up"]

BANNED: Final = 3


@click.command()
@click.argument("address", type=HOST)
@click.option("--remote", is_flag=True, help="Ask the feed's API: it costs one of its requests.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing: the status tells.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@pass_host
def check(host: Host, /, *, address: Network, remote: bool, quiet: bool, as_json: bool) -> None:
    """Tell whether an address is banned: status 3 when it is, 0 when it is not.

    An address that is listed and allowed is not banned. With --remote it is the API's answer that
    counts, whatever is allowed here.
    """
    verdict = look_up(host, address)
    listed = _ask_feed(host, address) if remote else None
    if as_json and not quiet:
        write_json(_document(verdict, listed))
    elif not quiet:
        click.echo(_line(verdict, host) if listed is None else _remote_line(verdict, host, listed))
    if verdict.banned if listed is None else listed:
        raise Exit(BANNED)


def look_up(host: Host, address: Network) -> Verdict:
    """Explain an address by this host's store and settings.

    Raises:
        SettingsError, StoreError

    """
    return explain(
        address,
        settings=host.settings,
        own=host.own,
        store=host.store,
        now=host.clock.now(),
        mode=host.mode(),
    )


def _ask_feed(host: Host, address: Network) -> bool:
    """Ask the feed within the node's rate limit.

    Raises:
        ApibanError: there is no key, no request is left now, or the feed gave no usable answer.

    """
    from apiban.feed.client import FeedClient  # noqa: PLC0415 - a check without it starts sooner

    feed = host.load().feed  # without a mistake: the key goes where these say
    if not feed.key:
        raise ApibanError("no key is set (feed.key, or APIBAN_KEY): the feed answers nobody")
    budget = Budget(host.store, host.clock, FEED_SOURCE, limit=feed.requests, window=feed.window)
    number = budget.spend(feed.timeout)
    if number is None:
        raise ApibanError(
            f"all {feed.requests} requests of {span(feed.window)} are spent; "
            f"the next one is free {ago(host.clock.now() + budget.wait(), host.clock.now())}"
        )
    try:
        return FeedClient(feed).check(str(address)).listed
    except FeedRateLimited as error:
        budget.rest(error.retry_after or feed.window)
        raise
    finally:
        budget.settle(number)


def _line(verdict: Verdict, host: Host) -> str:
    address, now = verdict.address, host.clock.now()
    if verdict.banned:
        sources = ", ".join(_sources(verdict))
        end = "for good" if verdict.expires is None else f"expires {ago(verdict.expires, now)}"
        aside = "" if verdict.dropped else f"; not dropped: mode {verdict.mode}"
        return f"{address} banned by {sources}, {end}{aside}"
    if verdict.listed:
        return f"{address} not banned: saved by {printable(str(verdict.exemptions[0]))}"
    return f"{address} not banned"


def _remote_line(verdict: Verdict, host: Host, listed: bool) -> str:  # noqa: FBT001 - an answer
    feed = urlsplit(host.settings.feed.url).hostname
    here = "banned" if verdict.banned else "not banned"
    return f"{verdict.address} {'listed' if listed else 'not listed'} by {feed}; here: {here}"


def _sources(verdict: Verdict) -> list[str]:
    return list(dict.fromkeys(one.entry.source for one in verdict.listings if one.in_force))


def _document(verdict: Verdict, listed: bool | None) -> dict[str, Any]:  # noqa: FBT001 - as above
    return {
        "address": str(verdict.address),
        "banned": verdict.banned,
        "dropped": verdict.dropped,
        "mode": str(verdict.mode),
        "sources": _sources(verdict),
        "expires": verdict.expires if verdict.banned else None,
        "enforced_until": verdict.ends if verdict.banned else None,
        "saved_by": [str(one) for one in verdict.exemptions],
        "remote_listed": listed,
    }
