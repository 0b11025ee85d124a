"""``apiban feed key``: who may ask, and who may report."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import click

from apiban.cli.service import open_service
from apiban.cli.words import DURATION, table, when
from apiban.errors import ApibanError
from apiban.feed.server.keys import READ, REPORT, KeyRecord
from apiban.settings.secret import Secret

__all__ = ["key"]

_QUOTA = click.IntRange(0, 1_000_000)


@click.group()
def key() -> None:
    """Make, list, change, rotate and revoke keys."""


@key.command()
@click.argument("name")
@click.option("--may", type=click.Choice([READ, REPORT]), default=READ, show_default=True)
@click.option("--requests", type=_QUOTA, help="Its own quota; 0 is no limit.")
@click.option("--window", type=DURATION, help="The quota's length of time.")
@click.option("--blocks", is_flag=True, help="It sees CIDR blocks.")
@click.option("--ipv6", is_flag=True, help="It sees IPv6.")
@click.option("--stdin", is_flag=True, help="Read a key of your own from the standard input.")
@click.pass_context
def create(context: click.Context, /, name: str, **options: Any) -> None:
    """Make a key, and print it: it cannot be read again.

    A key that may report has no quota unless it is given one.
    """
    given = Secret(sys.stdin.readline().strip()) if options["stdin"] else None
    requests = options["requests"]
    if requests is None and options["may"] == REPORT:
        requests = 0
    made = open_service(context).keys.create(
        name,
        may=options["may"],
        requests=requests,
        seconds=options["window"],
        blocks=options["blocks"],
        ipv6=options["ipv6"],
        given=given,
    )
    click.echo(made.reveal() if given is None else f"key {name} made")


@key.command("list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def list_keys(context: click.Context, /, *, as_json: bool) -> None:
    """List the keys, without their texts."""
    records = open_service(context).keys.records()
    if as_json:
        click.echo(json.dumps([asdict(record) for record in records], indent=2))
        return
    rows = [
        (
            record.name,
            record.may,
            _quota(record),
            "yes" if record.blocks else "no",
            "yes" if record.ipv6 else "no",
            record.used,
            when(record.last_used),
            when(record.revoked),
        )
        for record in records
    ]
    heads = ("name", "may", "quota", "blocks", "ipv6", "used", "last used", "revoked")
    click.echo(table(heads, rows))


@key.command()
@click.argument("name")
@click.pass_context
def rotate(context: click.Context, /, name: str) -> None:
    """Give a key another text, and print it; the old one is refused from now on."""
    click.echo(open_service(context).keys.rotate(name).reveal())


@key.command()
@click.argument("name")
@click.pass_context
def revoke(context: click.Context, /, name: str) -> None:
    """Refuse a key from now on."""
    open_service(context).keys.revoke(name)
    click.echo(f"key {name} revoked")


@key.command()
@click.argument("name")
@click.option("--may", type=click.Choice([READ, REPORT]))
@click.option("--requests", type=_QUOTA, help="Its own quota; 0 is no limit.")
@click.option("--window", "seconds", type=DURATION, help="The quota's length of time.")
@click.option("--blocks/--no-blocks", default=None, help="Whether it sees CIDR blocks.")
@click.option("--ipv6/--no-ipv6", default=None, help="Whether it sees IPv6.")
@click.pass_context
def change(context: click.Context, /, name: str, **values: Any) -> None:
    """Change a key's rights or its quota."""
    wanted = {what: value for what, value in values.items() if value is not None}
    if not wanted:
        raise ApibanError("nothing to change: see apiban feed key change --help")
    open_service(context).keys.change(name, wanted)
    click.echo(f"key {name} changed")


def _quota(record: KeyRecord) -> str:
    if record.requests == 0:
        return "none"
    if record.requests is None and record.seconds is None:
        return "default"
    requests = "default" if record.requests is None else record.requests
    return f"{requests} in {record.seconds:g} s" if record.seconds else f"{requests}"
