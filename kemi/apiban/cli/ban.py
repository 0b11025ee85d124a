"""``apiban ban`` and ``apiban unban``: the operator's own bans, and the end of a wrong one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from apiban.address import Network
from apiban.cli import addresses as lists
from apiban.cli import force
from apiban.cli.host import Host, pass_host
from apiban.cli.show import many, write_json
from apiban.cli.words import DURATION
from apiban.store import FEED_SOURCE, Entry
from apiban.verdict.decide import UnbanPlan, ban_end, plan_ban, plan_unban
from apiban.verdict.exempt import all_exemptions
from apiban.verdict.wanted import Wanted

__all__ = ["ban", "unban"]

_wide = click.option("--wide", is_flag=True, help="Permit ranges wider than feed.widest_ipv4/6.")


@click.command()
@lists.targets
@click.option("--for", "lasts", type=DURATION, help="How long: 90s, 30m, 12h, 7d; else for good.")
@click.option("--reason", default="", help="Why: it is kept, and shown by apiban why.")
@click.option("--around", is_flag=True, help="Ban a range around exempt addresses that it holds.")
@click.option(
    "--automatic",
    is_flag=True,
    help="For programs: refuse who was unbanned by hand, and shorten no ban.",
)
@_wide
@lists.skip_bad
@force.outcome_options
@pass_host
def ban(  # noqa: PLR0913 - each is one thing that an operator chooses
    host: Host,
    /,
    *,
    addresses: Sequence[Network | str],
    file: Path | None,
    lasts: float | None,
    reason: str,
    around: bool,
    automatic: bool,
    wide: bool,
    skip_bad: bool,
    waits: bool,
    as_json: bool,
) -> None:
    """Ban addresses and networks; - reads them from the standard input.

    All of a list is one change: when a line is bad, or must not be banned, nothing is changed.
    """
    asked = lists.given(addresses, file, reason)
    host.must_know_exempt()
    store = host.store_to_write()
    now = host.clock.now()
    expires = ban_end(now, lasts)
    with store.together():
        plan = plan_ban(
            asked.wanted,
            exemptions=all_exemptions(settings=host.settings, own=host.own, store=store, now=now),
            feed=host.settings.feed,
            wide=wide,
            around=around,
            automatic=automatic,
        )
        if automatic:
            plan = plan.lasting(store, expires=expires)
        done = skip_bad or not (asked.bad or plan.refused)
        new = plan.carry_out(store, expires=expires, now=now) if done else 0
    banned = plan.ban if done else ()
    in_force = force.wait(host, store, waits=waits) if banned else None
    if as_json:
        write_json(
            {
                "banned": [_banned(one, expires) for one in banned],
                "new": new,
                "kept": [_entry(one) for one in plan.kept],
                "lifted": [str(one.network) for one in plan.lift] if done else [],
                "refused": lists.document(asked, plan.refused),
                "in_force": force.document(in_force),
            }
        )
    lists.say_bad(asked, plan.refused, done=done)
    if as_json:
        force.end(in_force)
        return
    until = force.how_long(expires, now)
    why = {one: f": {one.reason}" if one.reason else "" for one in banned}
    lines = [f"{one.network} banned {until}{why[one]}" for one in banned]
    lists.say_each(lines, f"{{}} banned {until}, {new:,} of them new")
    lists.say_each(
        [f"{one.network} stays banned {force.how_long(one.expires, now)}" for one in plan.kept],
        "{} stay banned for longer",
    )
    if plan.lift:
        click.echo(f"{many(len(plan.lift), 'earlier unban')} lifted")
    force.say(in_force)


@click.command()
@lists.targets
@click.option(
    "--for",
    "lasts",
    type=DURATION,
    help="How long what a feed lists stays allowed (feed.ban_for, 7 days, unless it is set).",
)
@click.option("--reason", default="", help="Why: it is kept, and shown by apiban why.")
@click.option(
    "--automatic",
    is_flag=True,
    help="For programs: end what apiban ban set, with --reason that alone; allow nothing.",
)
@_wide
@lists.skip_bad
@force.outcome_options
@pass_host
def unban(  # noqa: PLR0913 - each is one thing that an operator chooses
    host: Host,
    /,
    *,
    addresses: Sequence[Network | str],
    file: Path | None,
    lasts: float | None,
    reason: str,
    automatic: bool,
    wide: bool,
    skip_bad: bool,
    waits: bool,
    as_json: bool,
) -> None:
    """End bans at once: those set here, those of the detector, and those of the feed.

    What the feed or a wider range still bans goes onto the allow list for a time, so that its next
    listing does not bring it back. --automatic, for programs, overrules nobody.
    """
    if automatic and lasts is not None:
        raise click.UsageError("--for goes without --automatic, which allows nothing")
    asked = lists.given(addresses, file, reason)
    store = host.store_to_write()
    settings, now = host.settings, host.clock.now()
    expires = ban_end(now, settings.feed.ban_for if lasts is None else lasts)
    with store.together():
        plan = plan_unban(
            asked.wanted,
            store=store,
            exemptions=all_exemptions(settings=settings, own=host.own, store=store, now=now),
            feed=settings.feed,
            now=now,
            wide=wide,
        )
        if automatic:
            plan = plan.automatic(reason)
        done = skip_bad or not (asked.bad or plan.refused)
        if done:
            plan.carry_out(store, expires=expires, now=now)
    changed = done and bool(plan.remove or plan.allow)
    in_force = force.wait(host, store, waits=waits) if changed else None
    if as_json:
        write_json(
            {
                "unbanned": [_entry(one) for one in plan.remove] if done else [],
                "allowed": [
                    {
                        "network": str(wanted.network),
                        "reason": wanted.reason,
                        "expires": force.or_null(expires),
                        "banned_by": _entry(entry),
                    }
                    for wanted, entry in (plan.allow if done else ())
                ],
                "saved": [
                    {"network": str(wanted.network), "by": str(exemption)}
                    for wanted, exemption in plan.saved
                ],
                "still_banned": [_entry(one) for one in plan.stay],
                "not_banned": [str(one.network) for one in plan.free],
                "refused": lists.document(asked, plan.refused),
                "in_force": force.document(in_force),
            }
        )
    lists.say_bad(asked, plan.refused, done=done)
    if as_json:
        force.end(in_force)
        return
    _say_unbanned(plan, force.how_long(expires, now))
    force.say(in_force)


def _say_unbanned(plan: UnbanPlan, until: str) -> None:
    lists.say_each([f"{one.network} unbanned ({one.source})" for one in plan.remove], "{} unbanned")
    lists.say_each(
        [f"{wanted.network} allowed {until}: {_what_bans(entry)}" for wanted, entry in plan.allow],
        f"{{}} allowed {until}: the feed, or wider bans, have them",
    )
    lists.say_each(
        [f"{wanted.network} is saved already: {one}" for wanted, one in plan.saved],
        "{} are saved already",
    )
    lists.say_each(
        [f"{one.network} stays banned ({one.source})" for one in plan.stay], "{} stay banned"
    )
    lists.say_each([f"{one.network} was not banned" for one in plan.free], "{} were not banned")


def _what_bans(entry: Entry) -> str:
    if entry.source == FEED_SOURCE:
        return f"the feed lists {entry.network}"
    return f"{entry.network} stays banned ({entry.source})"


def _banned(wanted: Wanted, expires: float) -> dict[str, object]:
    return {
        "network": str(wanted.network),
        "reason": wanted.reason,
        "expires": force.or_null(expires),
    }


def _entry(entry: Entry) -> dict[str, object]:
    return {
        "network": str(entry.network),
        "source": entry.source,
        "reason": entry.reason,
        "expires": force.or_null(entry.expires),
    }
