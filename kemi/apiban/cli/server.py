"""The commands of ``apiban feed`` that work on a feed of one's own: its service and its lists."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

import click

from apiban.address import Network
from apiban.cli.service import open_service
from apiban.cli.words import ADDRESS, DURATION, table, when
from apiban.errors import ApibanError
from apiban.feed.server.claims import MANUAL, Wanted
from apiban.feed.server.journal import note
from apiban.feed.server.listfile import parse_list
from apiban.feed.server.listings import DATASETS, View
from apiban.feed.server.transfer import export_store, import_list, import_store
from apiban.log import Level
from apiban.settings.secret import Secret

__all__ = [
    "check",
    "delist",
    "export",
    "import_",
    "list_addresses",
    "mirror",
    "operator_password",
    "serve",
    "show",
]

_CLAIM_COLUMNS: Final = ("source", "dataset", "first_seen", "last_seen", "expires", "reason")
_EVIDENCE_COLUMNS: Final = (
    *("honeypot", "method", "transport", "count", "last_seen"),
    *("tool", "user_agent", "dialled", "users"),
)

_addresses = click.argument("addresses", type=ADDRESS, nargs=-1, required=True)
_dataset = click.option(
    "--set", "dataset", type=click.Choice(DATASETS), default="sip", show_default=True
)


@click.command()
@click.option("--mirror/--no-mirror", default=True, help="Mirror the upstream in this process.")
@click.option(
    "--log",
    type=click.Choice(["err", "warn", "notice", "info"]),
    default="notice",
    show_default=True,
    help="How much is said; info has a line for each request.",
)
@click.pass_context
def serve(context: click.Context, /, *, mirror: bool, log: Level) -> None:
    """Serve the API, until a signal ends it."""
    # The other commands need no web server, and start sooner without it.
    from apiban.feed.server.serve import serve as run_service  # noqa: PLC0415

    context.exit(run_service(open_service(context, log), mirror=mirror))


@click.command()
@click.pass_context
def check(context: click.Context, /) -> None:
    """Check the settings and the database, and end."""
    service = open_service(context)
    click.echo(f"good: {service.listings.count()} listings, {len(service.keys.records())} keys")


@click.command("list")
@_addresses
@_dataset
@click.option("--for", "lasts", type=DURATION, default="7d", show_default=True, help="How long.")
@click.option("--reason", default="", help="Why: it is kept with the listing.")
@click.pass_context
def list_addresses(
    context: click.Context,
    /,
    *,
    addresses: Sequence[Network],
    dataset: str,
    lasts: float,
    reason: str,
) -> None:
    """Put addresses on the list by hand; this also lifts an earlier delisting."""
    service = open_service(context)
    now = time.time()
    with service.database.write() as connection:
        wanted = [Wanted(one, now, now + lasts, reason, dataset) for one in addresses]
        outcome = service.claims.make(connection, MANUAL, wanted, overrule=True)
        for one in addresses:
            if str(one) not in outcome.refused:
                note(
                    connection,
                    at=now,
                    who="operator",
                    action="listed",
                    what=str(one),
                    reason=reason,
                )
    _report_refused(outcome.refused)
    click.echo(f"{len(set(addresses)) - len(outcome.refused)} listed")
    context.exit(1 if outcome.refused else 0)


@click.command()
@_addresses
@click.option(
    "--for",
    "lasts",
    type=DURATION,
    default="7d",
    show_default=True,
    help="How long no honeypot, mirror or file may list them again.",
)
@click.option("--reason", default="", help="Why: it is kept in the journal.")
@click.pass_context
def delist(
    context: click.Context, /, *, addresses: Sequence[Network], lasts: float, reason: str
) -> None:
    """Take addresses off the list, and keep them off for a time."""
    service = open_service(context)
    now = time.time()
    with service.database.write() as connection:
        gone = service.claims.delist(connection, addresses, until=now + lasts, reason=reason)
        for one in addresses:
            note(
                connection, at=now, who="operator", action="delisted", what=str(one), reason=reason
            )
    click.echo(f"{gone} delisted; kept off the list until {when(now + lasts)} UTC")


@click.command()
@click.argument("address", type=ADDRESS)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.pass_context
def show(context: click.Context, /, *, address: Network, as_json: bool) -> None:
    """Show why an address is listed: who claims it, and what the honeypots saw of it."""
    service = open_service(context)
    with service.database.read() as connection:
        claims = service.claims.of(connection, address)
        kept_off = service.claims.kept_off(connection, address)
        evidence = service.evidence.of(connection, str(address))
    listed = service.listings.find(address, View("all", blocks=True, ipv6=True))
    if as_json:
        document = {
            "address": str(address),
            "listed": listed.address if listed else None,
            "claims": claims,
            "kept_off": kept_off,
            "evidence": evidence,
        }
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"{address}: " + (f"listed as {listed.address}" if listed else "not listed"))
    for one in kept_off:
        why = f": {one['reason']}" if one["reason"] else ""
        click.echo(f"{one['address']} is kept off the list until {when(one['until'])} UTC{why}")
    if claims:
        click.echo(_rows(_CLAIM_COLUMNS, claims))
    if evidence:
        click.echo(_rows(_EVIDENCE_COLUMNS, evidence))


@click.command("import")
@click.argument("source", type=click.File(encoding="utf-8-sig"))
@click.option("--name", default="import", show_default=True, help="What the list is called.")
@click.option("--replace", is_flag=True, help="Take back what the list of this name held before.")
@click.option("--store", is_flag=True, help="It is an exported store, for an empty database.")
@_dataset
@click.option("--for", "lasts", type=DURATION, default="7d", show_default=True, help="How long.")
@click.pass_context
def import_(  # noqa: PLR0913 - each is one thing that an operator chooses
    context: click.Context,
    /,
    *,
    source: TextIO,
    name: str,
    replace: bool,
    store: bool,
    dataset: str,
    lasts: float,
) -> None:
    """List what a file holds, an address or network a line; "-" is the standard input."""
    service = open_service(context)
    try:
        if store:
            click.echo(f"{import_store(service.database, source)} rows imported")
            return
        networks = parse_list(source, source.name)
    except UnicodeDecodeError:
        raise ApibanError(f"{source.name}: is not UTF-8 text") from None
    outcome, ended = import_list(
        service.database,
        service.claims,
        networks,
        name=name,
        now=time.time,
        lasts=lasts,
        replace=replace,
        dataset=dataset,
    )
    _report_refused(outcome.refused)
    listed = outcome.listed + outcome.renewed
    click.echo(
        f"{listed} listed ({outcome.new} new), {len(outcome.refused)} refused, {ended} ended"
    )


@click.command()
@click.option("--store", is_flag=True, help="The whole store, with the hashes of the keys.")
@click.option(
    "--set", "dataset", type=click.Choice([*DATASETS, "all"]), default="all", show_default=True
)
@click.option("--output", type=click.Path(path_type=Path), help="A file; it must not exist.")
@click.pass_context
def export(context: click.Context, /, *, store: bool, dataset: str, output: Path | None) -> None:
    """Write the active addresses, one a line, or the whole store, to the standard output."""
    service = open_service(context)
    lines: Iterator[str]
    if store:
        lines = export_store(service.database)
    else:
        lines = service.listings.whole(View(dataset, blocks=True, ipv6=True))
    with _opened(output) as file:
        for text in lines:
            file.write(text + "\n")


@click.command()
@click.pass_context
def mirror(context: click.Context, /) -> None:
    """Mirror the upstream in this process alone, until a signal ends it."""
    from apiban.feed.server.mirror import TICK_EVERY, Mirror  # noqa: PLC0415 - as above
    from apiban.feed.server.work import Work  # noqa: PLC0415 - as above

    service = open_service(context, "notice")
    if service.settings.mirror is None:
        raise ApibanError("mirror.url is not set: there is no upstream to mirror")
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    with contextlib.closing(Mirror(service)) as work:
        Work("mirror", work.tick, TICK_EVERY, service.log, end).run()


@click.command("operator-password")
@click.pass_context
def operator_password(context: click.Context, /) -> None:
    """Set the operator's password for the status page, from the standard input or a prompt."""
    from apiban.feed.server.operator import Operator  # noqa: PLC0415 - as above

    if sys.stdin.isatty():
        text = click.prompt("New password", hide_input=True, confirmation_prompt=True)
    else:
        text = sys.stdin.readline().rstrip("\n")
    service = open_service(context)
    operator = Operator(service.database, service.now, trust_loopback=False)
    operator.set_password(Secret(text))
    click.echo("the operator's password is set")


def _report_refused(refused: dict[str, str]) -> None:
    for address, reason in refused.items():
        click.echo(f"{address}: refused: {reason}", err=True)


def _rows(names: Sequence[str], rows: Sequence[dict[str, object]]) -> str:
    def shown(name: str, value: object) -> object:
        if isinstance(value, float) and (name.endswith("_seen") or name == "expires"):
            return when(value)
        return "-" if value is None else value

    heads = [name.replace("_", " ") for name in names]
    return table(heads, [[shown(name, row[name]) for name in names] for row in rows])


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """Give the standard output, or a new file that is readable for its owner alone."""
    if output is None:
        yield sys.stdout
        return
    try:
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ApibanError(f"{output}: {error.strerror}") from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        yield file
