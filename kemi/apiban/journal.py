"""What a service of ours says on its standard output, for the journal: the lines of ``log``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Final

from apiban.log import EVENTS, Level, Log, line

__all__ = ["make_journal"]

# The journal takes a line's level from its first characters: sd-daemon(3).
_PREFIXES: Final[Mapping[Level, str]] = {
    "err": "<3>",
    "warn": "<4>",
    "notice": "<5>",
    "info": "<6>",
}


def make_journal(environ: Mapping[str, str] = os.environ) -> Log:
    """Make a log on the standard output; lines have a level where that is the journal."""
    leveled = _is_journal(environ)

    def log(event: str, **fields: object) -> None:
        prefix = _PREFIXES[EVENTS[event]] if leveled else ""
        with contextlib.suppress(OSError):  # a full disk behind it is no reason to end
            sys.stdout.write(f"{prefix}{line(event, fields)}\n")
            sys.stdout.flush()

    return log


def _is_journal(environ: Mapping[str, str]) -> bool:
    """Tell whether the standard output is the one that systemd gave this service."""
    try:
        status = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):  # it is no file
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
