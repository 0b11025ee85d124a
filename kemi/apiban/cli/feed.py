"""``apiban feed``: a feed of one's own, and what this host's sync holds back of the feed's list."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from apiban.cli.lazy import LazyGroup

__all__ = ["SETTINGS", "VARIABLE", "feed"]

SETTINGS: Final = "apiban.feed.settings"  # where in the context the settings file is
VARIABLE: Final = "APIBAN_SERVER_SETTINGS"

# All but hold need the packages of a feed, which a node has not.
_COMMANDS: Final = {
    "check": "server:check",
    "delist": "server:delist",
    "export": "server:export",
    "hold": "hold:hold",
    "import": "server:import_",
    "key": "key:key",
    "list": "server:list_addresses",
    "mirror": "server:mirror",
    "operator-password": "server:operator_password",
    "serve": "server:serve",
    "show": "server:show",
}


@click.group(cls=LazyGroup, places=_COMMANDS, extra="feed")
@click.option(
    "--settings",
    "file",
    type=click.Path(path_type=Path),
    help=f"The settings file (${VARIABLE}, or /etc/apiban/feed.toml).",
)
@click.pass_context
def feed(context: click.Context, /, *, file: Path | None) -> None:
    """Run a feed of your own: an APIBAN-compatible service with honeypots behind it.

    "apiban feed hold" is about this host's node: what its sync holds back.
    """
    context.meta[SETTINGS] = file
