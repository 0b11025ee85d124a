"""The top of the command line: what goes wrong on purpose is one line, never a traceback."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Final

import click

from apiban import __version__
from apiban.cli.host import Host
from apiban.cli.lazy import LazyGroup
from apiban.cli.show import printable
from apiban.errors import ApibanError, SettingsError
from apiban.log import where

__all__ = ["apiban", "main"]

# Each verb's module is imported when it is used: a check in a script starts in a tenth of a second.
_VERBS: Final = {
    "allow": "allow:allow",
    "ban": "ban:ban",
    "check": "check:check",
    "completion": "completion:completion",
    "config": "config:config",
    "doctor": "doctor:doctor",
    "export": "export:export",
    "feed": "feed:feed",
    "firewall": "firewall:firewall",
    "list": "listing:list_entries",
    "metrics": "metrics:metrics",
    "mode": "mode:mode",
    "status": "status:status",
    "sync": "sync:sync",
    "top": "top:top",
    "unban": "ban:unban",
    "why": "why:why",
}


@click.group(
    cls=LazyGroup,
    places=_VERBS,
    invoke_without_command=True,  # -t and -T are whole commands
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="apiban")
@click.option(
    "--settings",
    "file",
    type=click.Path(path_type=Path),
    help="The settings file ($APIBAN_SETTINGS, or /etc/apiban/apiban.toml).",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    help="Another state folder than the settings'.",
)
@click.option(
    "--runtime",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    help="Another runtime folder than the settings'.",
)
@click.option("-t", "short", flag_value="check", help="The same as the verb: config check.")
@click.option("-T", "short", flag_value="show", help="The same as the verb: config show.")
@click.pass_context
def apiban(
    context: click.Context,
    /,
    *,
    file: Path | None,
    state: Path | None,
    runtime: Path | None,
    short: str | None,
) -> None:
    """APIBAN for Kamailio: see the ban list, ask it, overrule it."""
    os.umask(0o007)  # what a member of the group makes is for the group
    context.obj = Host(file=file, state=state, runtime=runtime)
    context.call_on_close(context.obj.close)
    if (short is None) == (context.invoked_subcommand is None):
        raise click.UsageError("one verb is wanted, or -t or -T alone; -h lists them")
    if short is not None:
        config = importlib.import_module("apiban.cli.config")
        context.invoke(config.config.commands[short])


def main() -> None:
    """Run a command: status 0 when it is done, 1 when not, 2 for misuse, 70 for a fault."""
    if sys.stdout is None:  # it was closed, as by >&-: what is said there goes nowhere
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for good
    try:
        status = apiban.main(prog_name="apiban", standalone_mode=False)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(f"apiban: {printable(problem)}", err=True)
        sys.exit(1)
    except ApibanError as error:
        click.echo(f"apiban: {printable(str(error))}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader has gone, as `head` does: nothing is left to say.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:  # a full disk at the other end of a pipe, and its kin
        click.echo(f"apiban: {error.filename or 'output'}: {error.strerror}", err=True)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - an operator is told where, in one line
        click.echo(f"apiban: a fault of ours: {type(error).__name__} at {where(error)}", err=True)
        sys.exit(70)
    sys.exit(status if isinstance(status, int) else 0)
