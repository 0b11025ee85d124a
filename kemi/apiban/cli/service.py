"""How the feed's commands come to the feed: its settings, opened when a command needs them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import click

from apiban.feed.server.service import Service
from apiban.feed.server.settings import load_server_settings, server_settings_path
from apiban.feed.server.stderr_log import make_log
from apiban.log import Level

__all__ = ["SETTINGS", "open_service", "settings_option"]

SETTINGS: Final = "apiban.feed.settings"
_VARIABLE: Final = "APIBAN_SERVER_SETTINGS"

settings_option = click.option(
    "--settings",
    "file",
    type=click.Path(path_type=Path),
    help=f"The settings file (${_VARIABLE}, or /etc/apiban/feed.toml).",
)


def open_service(context: click.Context, level: Level = "warn") -> Service:
    """Open the feed that the command line, or the environment, names; it is closed at the end.

    Raises:
        SettingsError, ApibanError

    """
    environ = dict(os.environ)
    file = context.meta.get(SETTINGS)
    if file is not None:
        environ[_VARIABLE] = str(file)
    settings = load_server_settings(server_settings_path(environ), environ)
    service = Service(settings, now=time.time, log=make_log(level))
    context.call_on_close(service.close)
    return service
