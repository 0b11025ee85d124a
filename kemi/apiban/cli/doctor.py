"""``apiban doctor``: what is wrong on this host, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

import click

from apiban.cli.host import Host, pass_host
from apiban.cli.show import console, printable, write_json
from apiban.doctor.examine import examine
from apiban.doctor.finding import Level
from apiban.doctor.settings import check_problems
from apiban.errors import SettingsError
from apiban.settings import settings_path

__all__ = ["doctor"]

_STYLES: Final[dict[Level, str]] = {
    "ok": "green",
    "note": "dim",
    "warn": "yellow",
    "fail": "bold red",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@pass_host
@click.pass_context
def doctor(context: click.Context, host: Host, /, *, as_json: bool) -> None:
    """Look at all that the ban list needs to work, and say how to mend what is wrong.

    Status 1 when anything failed. It changes nothing, asks the feed's API nothing, and sends one
    harmless SIP message to this host's own Kamailio: an OPTIONS of the user agent apiban-doctor.
    As root it sees more.
    """
    path = settings_path(host.environ())
    try:
        findings = examine(path, host.load(), clock=host.clock)
    except SettingsError as error:  # without settings there is nothing else to look at
        findings = iter(check_problems(path, error.problems))
    found = []
    screen = None if as_json else console()
    for finding in findings:
        found.append(finding)
        if screen is not None:
            word = "FAIL" if finding.level == "fail" else finding.level
            mend = f"; mend: {finding.mend}" if finding.mend else ""
            screen.print(f"{word:5}", style=_STYLES[finding.level], end="")
            told = printable(f"{finding.what}{mend}")
            screen.print(f" {finding.check:14} {told}", soft_wrap=True)
    failed = any(finding.level == "fail" for finding in found)
    if as_json:
        write_json({"healthy": not failed, "findings": [asdict(finding) for finding in found]})
    context.exit(1 if failed else 0)
