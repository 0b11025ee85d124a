"""How the feed's commands come to the feed: its settings, opened when a command needs them."""

from __future__ import annotations

import os
import time

import click

from apiban.cli.feed import SETTINGS, VARIABLE
from apiban.feed.server.service import Service
from apiban.feed.server.settings import load_server_settings, server_settings_path
from apiban.feed.server.stderr_log import make_log
from apiban.log import Level

__all__ = ["open_service"]


def open_service(context: click.Context, level: Level = "warn") -> Service:
    """Open the feed that the command line, or the environment, names; it is closed at the end.

    Raises:
        SettingsError, ApibanError

    """
    environ = dict(os.environ)
    file = context.meta.get(SETTINGS)
    if file is not None:
        environ[VARIABLE] = str(file)
    settings = load_server_settings(server_settings_path(environ), environ)
    service = Service(settings, now=time.time, log=make_log(level))
    context.call_on_close(service.close)
    return service
