"""``apiban export``: the list for other firewalls, in their own words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from apiban.address import Family
from apiban.cli.dialects import DIALECTS, Listing
from apiban.cli.host import Host, pass_host
from apiban.cli.output import put_lines
from apiban.cli.published import published
from apiban.cli.syncer import somebody_syncs
from apiban.cli.words import Kind
from apiban.errors import ApibanError
from apiban.settings import Mode
from apiban.snapshot import Snapshot
from apiban.snapshot.publish import encode_list

__all__ = ["export"]

_FAMILIES: Final[dict[str | None, tuple[Family, ...]]] = {None: (4, 6), "4": (4,), "6": (6,)}


class _Name(Kind[str]):
    """A name that every firewall takes as it is."""

    name = "name"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Give it."""
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,19}", str(value)):
            self.fail("a letter, then letters, digits and _, all small, 20 at most", param, ctx)
        return str(value)


@click.command()
@click.option(
    "--format",
    "dialect",
    type=click.Choice(list(DIALECTS)),
    default="plain",
    show_default=True,
    help="What reads it.",
)
@click.option("--family", type=click.Choice(["4", "6"]), help="IPv4 or IPv6 alone.")
@click.option(
    "--name",
    type=_Name(),
    default="apiban_list",
    show_default=True,
    help="Of the ipset (and its family's number), the table of nftables, the address list.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Put it whole into this file, for everybody to read.",
)
@pass_host
def export(
    host: Host, /, *, dialect: str, family: str | None, name: str, output: Path | None
) -> None:
    """Write what is banned for another firewall: the allow list is cut out of it.

    plain is an address or a CIDR block a line, cidr the same with a prefix everywhere; ipset is for
    "ipset restore", nftables for "nft -f", mikrotik for RouterOS' "/import".
    """
    snapshot = _list(host)
    if snapshot.mode is not Mode.ENFORCE:
        click.echo(f"apiban: the mode is {snapshot.mode}: this host drops none of them", err=True)
    listing = Listing(snapshot, _FAMILIES[family], name, host.clock.now())
    put_lines(DIALECTS[dialect](listing), output)


def _list(host: Host) -> Snapshot:
    """Give the published list; where nobody syncs it is made of the store, which may know more.

    Raises:
        ApibanError: there is none.

    """
    nobody = not somebody_syncs(host.settings.paths.state)
    if nobody and host.has_store() and host.knows_settings:
        store, now = host.store, host.clock.now()
        settings = replace(host.settings, mode=host.mode())
        with store.steady():
            content = encode_list(store, settings, host.own, generation=0, now=now)
        return Snapshot(memoryview(content))
    list_ = published(host)
    if list_ is None:
        raise ApibanError("there is no list yet: Kamailio's sync, or apiban sync, makes it")
    return list_.snapshot
