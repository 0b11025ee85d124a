"""The log of the feed's own processes: their standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from apiban.log import EVENTS, Level, line

__all__ = ["make_log"]

_LEVELS: Final[tuple[Level, ...]] = ("err", "warn", "notice", "info")


def make_log(level: Level) -> Callable[..., None]:
    """Make a log on the standard error: lines up to this level, each with its time."""
    wanted = _LEVELS[: _LEVELS.index(level) + 1]

    def log(event: str, **fields: object) -> None:
        own = EVENTS[event]
        if own in wanted:
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            sys.stderr.write(f"{at} {own} {line(event, fields)}\n")

    return log
