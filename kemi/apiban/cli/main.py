"""The top of the command line: what goes wrong on purpose is one line, never a traceback."""

from __future__ import annotations

import sys

import click

from apiban import __version__
from apiban.cli.feed import feed
from apiban.errors import ApibanError, SettingsError
from apiban.log import where

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="apiban")
def apiban() -> None:
    """APIBAN for Kamailio."""


apiban.add_command(feed)


def main() -> None:
    """Run a command: status 0 when it is done, 1 when not, 2 for misuse, 70 for a fault."""
    try:
        status = apiban.main(prog_name="apiban", standalone_mode=False)
    except SettingsError as error:
        for problem in error.problems:
            click.echo(f"apiban: {problem}", err=True)
        sys.exit(1)
    except ApibanError as error:
        click.echo(f"apiban: {error}", err=True)
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
    except Exception as error:  # noqa: BLE001 - an operator is told where, in one line
        click.echo(f"apiban: a fault of ours: {type(error).__name__} at {where(error)}", err=True)
        sys.exit(70)
    sys.exit(status if isinstance(status, int) else 0)
