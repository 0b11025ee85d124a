"""``apiban mode``: what happens to a listed source, without a restart."""

from __future__ import annotations

from typing import Final

import click

from apiban.cli import force
from apiban.cli.host import Host, pass_host
from apiban.cli.show import write_json
from apiban.cli.words import DURATION
from apiban.settings import Mode
from apiban.store import ModeOverride
from apiban.verdict.decide import ban_end

__all__ = ["mode"]

_SETTINGS: Final = "settings"


@click.command()
@click.argument(
    "wanted",
    metavar="[enforce|shadow|off|settings]",
    required=False,
    type=click.Choice([*(str(one) for one in Mode), _SETTINGS]),
)
@click.option("--for", "lasts", type=DURATION, help="How long: 90s, 30m, 12h; else for good.")
@force.outcome_options
@pass_host
def mode(
    host: Host, /, *, wanted: str | None, lasts: float | None, waits: bool, as_json: bool
) -> None:
    """Show the mode, or set another one: it goes before that of the settings.

    enforce drops who is listed; shadow counts and logs whom it would drop; off drops nobody.
    "settings" goes back to the settings' mode, and so does a later change of it there.
    """
    if lasts is not None and wanted in (None, _SETTINGS):
        raise click.UsageError("--for goes with enforce, shadow or off")
    now = host.clock.now()
    in_force = None
    if wanted is not None:
        store = host.store_to_write()
        chosen = None if wanted == _SETTINGS else Mode[wanted.upper()]
        store.set_mode(
            chosen,
            now=now,
            expires=force.or_null(ban_end(now, lasts)),
            over=host.settings.mode if host.knows_settings else None,
        )
        in_force = force.wait(host, store, waits=waits)
    override = host.override()
    if as_json:
        write_json(
            {
                "mode": str(host.settings.mode if override is None else override.mode),
                "by": "settings" if override is None else "operator",
                "since": override.added if override else None,
                "expires": override.expires if override else None,
                "settings": str(host.settings.mode),
                "in_force": force.document(in_force),
            }
        )
        force.end(in_force)
        return
    click.echo(_line(host.settings.mode, override, now))
    force.say(in_force)


def _line(settings: Mode, override: ModeOverride | None, now: float) -> str:
    if override is None:
        return f"mode {settings}, as the settings say"
    end = force.how_long(override.expires, now)
    if override.expires is not None:
        return (
            f"mode {override.mode} {end}, set by apiban mode; then {settings}, as the settings say"
        )
    return f"mode {override.mode} {end}, set by apiban mode; the settings say {settings}"
