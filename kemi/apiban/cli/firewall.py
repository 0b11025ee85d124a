"""``apiban firewall``: the list in the kernel, for a host without Kamailio or beside one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import click

from apiban import __version__
from apiban.cli.firewall_show import plan_document, say_plan, say_status, status_document
from apiban.cli.firewall_state import standing
from apiban.cli.host import Host, pass_host
from apiban.cli.show import many, write_json
from apiban.cli.syncer import somebody_syncs
from apiban.errors import ApibanError, FirewallError
from apiban.firewall.choose import BACKENDS, make_backend
from apiban.firewall.client import FirewallClient
from apiban.firewall.conntrack import cut
from apiban.firewall.elements import Change
from apiban.firewall.former import DRY_RUN
from apiban.firewall.lock import alone, who_runs
from apiban.firewall.report import remove_report, report_path
from apiban.firewall.rules import Rules
from apiban.journal import make_journal
from apiban.kemi.folders import Folders
from apiban.log import EVENTS, Log, line
from apiban.settings import settings_path
from apiban.sync.own import own_addresses
from apiban.ticks import run_service

__all__ = ["firewall"]

_TICK: Final = 0.25
# A rate of floods takes two looks that are so far apart.
_TWO_LOOKS: Final = 2.2
# The service starts before Kamailio does.
_GRACE: Final = 60.0
_EFFECT: Final = "the kernel keeps what it holds"

_json = click.option("--json", "as_json", is_flag=True, help="For machines.")


@click.group()
def firewall() -> None:
    """Hold the list in the kernel: nftables, or ipset with iptables.

    For a host without Kamailio, and beside one. run is what the service runs; the others look, or
    do it once.
    """


@firewall.command()
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@pass_host
def run(host: Host, /, *, dry_run: bool) -> None:
    """Keep the kernel to the list until SIGTERM; SIGHUP reads the settings at once.

    Rules and bans stay at the end, or go: firewall.on_exit.
    """
    reload = threading.Event()
    # First of all: without a handler the signal ends the process.
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    log = make_journal()
    settings = host.load()
    Folders(settings.paths.state).make(settings.paths.runtime)
    with alone(settings.paths.runtime):
        client = _client(host, log, dry_run=dry_run, grace=_GRACE)

        def tick() -> None:
            if reload.is_set():
                reload.clear()
                client.reload()
            client.tick()

        used = client.settings.firewall
        log(
            "firewall-start",
            version=__version__,
            backend=used.backend,
            sources=used.sources,
            on_exit=used.on_exit,
        )
        _must_be_allowed(client)
        run_service(tick, every=_TICK, effect=_EFFECT, log=log)
        client.stop()


@firewall.command()
@_json
@pass_host
def once(host: Host, /, *, as_json: bool) -> None:
    """Bring the kernel to what the list says, once: for hosts that have a timer run this.

    Bans end by the kernel's own clock; those that the list renews need the next run in time.
    """
    settings = host.load()
    Folders(settings.paths.state).make(settings.paths.runtime)
    with alone(settings.paths.runtime):
        # One document is all that is on the standard output then.
        client = _ready_client(host, say=_say_beside if as_json else None)
        change = client.once()
    ipv4, ipv6 = client.kernel.counts(host.clock.now())
    if as_json:
        write_json({**_counts(change), "banned_ipv4": ipv4, "banned_ipv6": ipv6})
        return
    done = _counts(change)
    said = ", ".join(f"{number:,} {name}" for name, number in done.items() if number)
    where = "in the kernel"
    if settings.firewall.backend == DRY_RUN:
        where = "would be in the kernel: a dry run changes nothing"
    click.echo(f"{said or 'nothing to change'}; {many(ipv4 + ipv6, 'block')} {where}")


@firewall.command()
@click.option("--script", is_flag=True, help="What the kernel's tool would be given, whole.")
@_json
@pass_host
def plan(host: Host, /, *, script: bool, as_json: bool) -> None:
    """Show what once would change, and change nothing."""
    if script and as_json:
        raise click.UsageError("--script goes without --json")
    client = _ready_client(host)
    change, rules = _previewed(client)
    if script:
        backend, now = client.kernel.backend, host.clock.now()
        click.echo(backend.script(change, rules, now=now) if change else "", nl=False)
    elif as_json:
        write_json(plan_document(change, rules))
    else:
        say_plan(change, rules, now=host.clock.now())


@firewall.command()
@click.option("--force", is_flag=True, help="Also while a client runs, which puts it back.")
@pass_host
def flush(host: Host, /, *, force: bool) -> None:
    """Take all that is ours out of the kernel, whichever backend put it there.

    A client that runs would put it back: it must be ended first. To let all packets pass while it
    runs: apiban mode off.
    """
    settings = host.settings
    pid = who_runs(settings.paths.runtime)
    if pid is not None and not force:
        named = f" (process {pid})" if pid else ""
        raise ApibanError(
            f"a firewall client runs{named} and would put it back: end it first, as by systemctl "
            "stop apiban-firewall; apiban mode off lets all pass while it runs"
        )
    make_backend(settings.firewall).remove()
    for name, make in BACKENDS.items():
        if name != settings.firewall.backend:
            try:
                make().remove()
            except FirewallError:  # its tools are not here: it can have put nothing there
                continue
    if pid is None:
        try:
            remove_report(settings.paths.runtime)
        except OSError as error:
            path = report_path(settings.paths.runtime)
            raise ApibanError(
                f"{path}: {error.strerror}: it says what the kernel held, and nothing is held"
            ) from None
    back = f"; the client puts it back within {settings.firewall.interval:g} s" if pid else ""
    click.echo(f"nothing of ours is in the kernel{back}")


@firewall.command()
@_json
@pass_host
def status(host: Host, /, *, as_json: bool) -> None:
    """Show what the kernel holds and should hold, its counters, and what is wrong.

    It is what the client that runs says; as root, where none runs, the kernel itself is asked.
    """
    client = _client(host, _quiet)
    found = standing(host, client)
    if as_json:
        write_json(status_document(found))
    else:
        say_status(found)


def _client(
    host: Host,
    log: Log,
    *,
    dry_run: bool = False,
    say: Callable[[str], None] | None = None,
    grace: float = 0.0,
) -> FirewallClient:
    """Make a client of the folders that the command line names; ``grace`` is Kamailio's to start.

    Raises:
        SettingsError

    """
    settings = host.load()
    environ = {
        **host.environ(),
        "APIBAN_PATHS_STATE": str(settings.paths.state),
        "APIBAN_PATHS_RUNTIME": str(settings.paths.runtime),
    }
    if dry_run:
        environ["APIBAN_FIREWALL_BACKEND"] = "dry-run"
    return FirewallClient(
        path=settings_path(environ),
        environ=environ,
        clock=host.clock,
        log=log,
        make_backend=partial(make_backend, say=say),
        own=own_addresses,
        somebody_syncs=somebody_syncs,
        cut=cut,
        grace=grace,
    )


def _must_be_allowed(client: FirewallClient) -> None:
    """Make sure at the start that the kernel lets us: later it is tried again and again.

    Raises:
        FirewallError

    """
    client.kernel.backend.mark()


def _ready_client(host: Host, *, say: Callable[[str], None] | None = None) -> FirewallClient:
    """Make one that has looked at the list, for a command.

    Raises:
        ApibanError: there is no list.

    """
    said: list[tuple[str, dict[str, object]]] = []
    begun = False

    def log(event: str, **fields: object) -> None:
        if begun:
            _say(event, **fields)
        else:
            said.append((event, fields))

    client = _client(host, log, say=say)
    client.look()
    listed = client.listed
    if listed is None:  # the error says it, and nothing says it twice
        raise ApibanError(
            client.trouble if client.waits else f"no list can be read: {client.trouble}"
        )
    begun = True
    for event, fields in said:
        _say(event, **fields)
    if client.settings.firewall.sources == "flooding":
        client.wanted(listed)
        time.sleep(_TWO_LOOKS)
    return client


def _previewed(client: FirewallClient) -> tuple[Change, Rules]:
    found = client.preview()
    assert found is not None  # noqa: S101 - _ready_client() saw the list
    return found


def _counts(change: Change) -> dict[str, int]:
    return {
        "added": len(change.add),
        "extended": len(change.extend),
        "removed": len(change.remove),
        "allowed": len(change.allow),
        "disallowed": len(change.disallow),
    }


def _say(event: str, **fields: object) -> None:
    """Show what is wrong beside a command's own words."""
    if EVENTS[event] in ("warn", "err"):
        click.echo(line(event, fields), err=True)


def _say_beside(text: str) -> None:
    """Show what a dry run would do beside the document."""
    click.echo(text, err=True)


def _quiet(event: str, **fields: object) -> None:
    """Say nothing: the command shows it itself."""
