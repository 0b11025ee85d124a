"""When a change is in force: what the writing commands wait for, and say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click
from click.exceptions import Exit

from apiban.cli.host import Host
from apiban.cli.in_force import InForce, wait_in_force
from apiban.cli.show import until_when
from apiban.snapshot.format import FOREVER
from apiban.store import Store

__all__ = [
    "NOT_IN_FORCE",
    "document",
    "end",
    "how_long",
    "or_null",
    "outcome_options",
    "say",
    "wait",
]

# The status of a change that is stored, and that the Kamailio or the kernel does not have yet.
NOT_IN_FORCE: Final = 4

_AT_ONCE: Final = 0.005
# Who has a change is said where there is a firewall client.
_WHERE: Final = {
    (): "",
    ("kamailio",): "",
    ("kernel",): " in the kernel",
    ("kamailio", "kernel"): " in Kamailio and in the kernel",
}
_Command = TypeVar("_Command", bound=Callable[..., Any])


def outcome_options(command: _Command) -> _Command:
    """Give a command ``--no-wait`` and ``--json``."""
    waits = click.option(
        "--wait/--no-wait",
        "waits",
        default=True,
        help="Wait until it is in force.",
    )
    return waits(click.option("--json", "as_json", is_flag=True, help="For machines.")(command))


def wait(host: Host, store: Store, *, waits: bool) -> InForce | None:
    """Wait until all that was written is in every worker's list and the kernel; None: do not."""
    return wait_in_force(host, store) if waits else None


def end(in_force: InForce | None) -> None:
    """End the command with a status of its own when Kamailio or the kernel lacks the change.

    Raises:
        Exit

    """
    if in_force is not None and in_force.seconds is None and in_force.runs:
        raise Exit(NOT_IN_FORCE)


def say(in_force: InForce | None) -> None:
    """Say what became of it, and ``end``; what is only stored is a note beside the output."""
    if in_force is None:
        return
    if in_force.seconds is None:
        click.echo(f"apiban: stored, not in force yet: {in_force.why_not}", err=True)
    else:
        took = f" in {in_force.seconds:.2f} s" if in_force.seconds >= _AT_ONCE else ""
        where = _WHERE[in_force.where]
        generation = f", generation {in_force.generation}" if in_force.generation else ""
        click.echo(f"in force{where}{took}{generation}")
    end(in_force)


def document(in_force: InForce | None) -> dict[str, object] | None:
    """Give it for machines: ``seconds`` is null when it is not in force, ``why_not`` says why.

    ``where`` are those who have it.
    """
    if in_force is None:
        return None
    done = in_force.seconds is not None
    return {
        "seconds": in_force.seconds,
        "generation": (in_force.generation or None) if done else None,
        "why_not": None if done else in_force.why_not,
        "where": list(in_force.where),
    }


def or_null(expires: float | None) -> float | None:
    """Give an end for machines: what never comes is null."""
    return None if expires is None or expires >= FOREVER else expires


def how_long(expires: float | None, now: float) -> str:
    """Show an end: ``until 2026-11-22 10:00:00 UTC (in 3 h)``, or ``for good``."""
    end = or_null(expires)
    return until_when(end, now) if end is None else f"until {until_when(end, now)}"
