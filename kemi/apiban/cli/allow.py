"""``apiban allow``: who is never dropped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from apiban.address import Network
from apiban.cli import addresses as lists
from apiban.cli import force
from apiban.cli.host import Host, pass_host
from apiban.cli.show import printable, until_when, write_csv, write_json, write_json_list
from apiban.cli.words import DURATION, table, when
from apiban.store import Store
from apiban.verdict.decide import ban_end
from apiban.verdict.exempt import Exemption, all_exemptions
from apiban.verdict.permit import plan_allow, plan_remove

__all__ = ["allow"]

_COLUMNS: Final = ("network", "source", "reason", "added", "expires")
# What says so where the store does not: the names are the settings'.
_STANDING: Final = {
    "settings": "allow.networks",
    "upstream": "edge.upstreams",
    "peer": "node.peers",
    "own": "own address",
}


@click.group()
def allow() -> None:
    """Allow addresses, whoever bans them: add, remove, list."""


@allow.command()
@lists.targets
@click.option("--for", "lasts", type=DURATION, help="How long: 90s, 30m, 12h, 7d; else for good.")
@click.option("--reason", default="", help="Why: it is kept, and shown by apiban why.")
@lists.skip_bad
@force.outcome_options
@pass_host
def add(  # noqa: PLR0913 - each is one thing that an operator chooses
    host: Host,
    /,
    *,
    addresses: Sequence[Network | str],
    file: Path | None,
    lasts: float | None,
    reason: str,
    skip_bad: bool,
    waits: bool,
    as_json: bool,
) -> None:
    """Save addresses and networks from every ban; - reads them from the standard input."""
    asked = lists.given(addresses, file, reason)
    store = host.store_to_write()
    now = host.clock.now()
    expires = force.or_null(ban_end(now, lasts))
    plan = plan_allow(asked.wanted)
    done = skip_bad or not (asked.bad or plan.refused)
    if done:
        plan.carry_out(store, expires=expires, now=now)
    allowed = plan.allow if done else ()
    in_force = force.wait(host, store, waits=waits) if allowed else None
    if as_json:
        write_json(
            {
                "allowed": [
                    {"network": str(one.network), "reason": one.reason, "expires": expires}
                    for one in allowed
                ],
                "refused": lists.document(asked, plan.refused),
                "in_force": force.document(in_force),
            }
        )
    lists.say_bad(asked, plan.refused, done=done)
    if as_json:
        force.end(in_force)
        return
    until = force.how_long(expires, now)
    lines = [f"{one.network} allowed {until}" + _why(one.reason) for one in allowed]
    lists.say_each(lines, f"{{}} allowed {until}")
    force.say(in_force)


@allow.command()
@lists.targets
@lists.skip_bad
@force.outcome_options
@pass_host
def remove(  # noqa: PLR0913 - each is one thing that an operator chooses
    host: Host,
    /,
    *,
    addresses: Sequence[Network | str],
    file: Path | None,
    skip_bad: bool,
    waits: bool,
    as_json: bool,
) -> None:
    """Take off the allow list what apiban allow and apiban unban put there."""
    asked = lists.given(addresses, file, "")
    store = host.store_to_write()
    now = host.clock.now()
    with store.together():
        plan = plan_remove(asked.wanted, exemptions=_exemptions(host, store, now))
        done = skip_bad or not (asked.bad or plan.refused)
        if done:
            plan.carry_out(store, now=now)
    removed = plan.remove if done else ()
    in_force = force.wait(host, store, waits=waits) if removed else None
    if as_json:
        write_json(
            {
                "removed": [{"network": str(one.network), "source": one.source} for one in removed],
                "still_allowed": [
                    {"network": str(wanted.network), "by": str(one)} for wanted, one in plan.still
                ],
                "refused": lists.document(asked, plan.refused),
                "in_force": force.document(in_force),
            }
        )
    lists.say_bad(asked, plan.refused, done=done)
    if as_json:
        force.end(in_force)
        return
    lines = [f"{one.network} removed from the allow list ({one.source})" for one in removed]
    lists.say_each(lines, "{} removed from the allow list")
    lines = [f"{wanted.network} is still allowed by {one}" for wanted, one in plan.still]
    lists.say_each(lines, "{} are still allowed by others")
    force.say(in_force)


@allow.command("list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--csv", "as_csv", is_flag=True, help="For spreadsheets.")
@pass_host
def list_allowed(host: Host, /, *, as_json: bool, as_csv: bool) -> None:
    """List who is never dropped, and who says so: you, the settings, Kamailio, this host."""
    if as_json and as_csv:
        raise click.UsageError("--json or --csv, not both")
    now = host.clock.now()
    rows = [
        _row(one) for one in sorted(_exemptions(host, host.store, now), key=lambda one: one.network)
    ]
    if as_json:
        write_json_list(dict(zip(_COLUMNS, row, strict=True)) for row in rows)
    elif as_csv:
        write_csv(_COLUMNS, rows)
    elif not rows:
        click.echo("nobody is on the allow list")
    else:
        click.echo(
            table(
                _COLUMNS,
                [
                    (network, source, printable(reason) or "-", when(added), until_when(end, now))
                    for network, source, reason, added, end in rows
                ],
            )
        )


def _exemptions(host: Host, store: Store, now: float) -> list[Exemption]:
    return all_exemptions(settings=host.settings, own=host.own, store=store, now=now)


def _row(one: Exemption) -> tuple[str, str, str, float | None, float | None]:
    allowed = one.allowed
    if allowed is None:
        return str(one.network), _STANDING[one.kind], "", None, None
    return str(one.network), allowed.source, allowed.reason, allowed.added, allowed.expires


def _why(reason: str) -> str:
    return f": {reason}" if reason else ""
