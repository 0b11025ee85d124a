"""``apiban config``: are the settings good, and who gave each of them."""

from __future__ import annotations

import json
from dataclasses import replace

import click

from apiban.cli.host import Host, pass_host
from apiban.errors import SettingsError
from apiban.settings import Explained, explain_settings, settings_path, warnings
from apiban.settings.explain import plain
from apiban.settings.reading import Origin

__all__ = ["config"]

_json = click.option("--json", "as_json", is_flag=True, help="For machines.")


@click.group()
def config() -> None:
    """Check the settings, or show what they are and who gave each."""


@config.command()
@_json
@pass_host
@click.pass_context
def check(context: click.Context, host: Host, /, *, as_json: bool = False) -> None:
    """Say every mistake in the settings, each on a line; status 1 when there is one.

    They are read as Kamailio would read them at its start. Nothing else is looked at: see doctor.
    """
    path = settings_path(host.environ())
    problems: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    try:
        warned = warnings(host.load())
    except SettingsError as error:
        problems = error.problems
        if not as_json:
            raise
    if as_json:
        document = {
            "file": str(path),
            "good": not problems,
            "problems": problems,
            "warnings": warned,
        }
        click.echo(json.dumps(document, indent=2))
    else:
        for warning in warned:
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"{path}: good" if path.exists() else f"{path}: not there; the defaults: good")
    context.exit(1 if problems else 0)


@config.command()
@_json
@pass_host
def show(host: Host, /, *, as_json: bool = False) -> None:
    """Show every setting as it is in force, and who gave it; keys are masked."""
    path = settings_path(host.environ())
    explained = [_of_command_line(host, one) for one in explain_settings(path, host.environ())]
    if as_json:
        document = {
            one.name: {"value": one.value, "origin": one.origin.kind, "name": one.origin.name}
            for one in explained
        }
        click.echo(json.dumps({"file": str(path), "settings": document}, indent=2))
        return
    # JSON's texts, numbers and lists are TOML's, too.
    shown = [(f"{one.name} = {json.dumps(one.value)}", one.origin) for one in explained]
    width = min(max(len(text) for text, _ in shown), 60)
    for text, origin in shown:
        click.echo(f"{text.ljust(width)}  # {origin}")


def _of_command_line(host: Host, one: Explained) -> Explained:
    """Put the folders of ``--state`` and ``--runtime`` in their place."""
    section, _, name = one.name.partition(".")
    if section != "paths":
        return one
    value = plain(getattr(host.settings.paths, name))
    if value == one.value:
        return one
    return replace(one, value=value, origin=Origin("command line", f"--{name}"))
