"""The loop of a process that a process of Kamailio's keeps (``kemi.keeper``).

Each ``.`` of standard input is a tick, and every line there is something that the process is told;
its end is the end of the process. Each line of standard output is ``LEVEL text``, for the log of
the process that reads it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Final

from apiban.log import EVENTS, line, where

__all__ = ["run", "say"]

_FAULT_EVERY: Final = 60.0
_CHUNK: Final = 65_536


def say(event: str, **fields: object) -> None:
    """Write a line for the parent's log."""
    sys.stdout.write(f"{EVENTS[event]} {line(event, fields)}\n")
    sys.stdout.flush()


def run(
    tick: Callable[[], None],
    *,
    effect: str,
    told: Callable[[list[bytes]], None] = lambda _: None,
) -> None:
    """Work a tick at a time until the input ends; what fails is said, and the next tick comes.

    ``told`` is given the lines that came since, without their ends, before the tick.
    """
    quiet_until = 0.0
    rest = b""
    while data := os.read(sys.stdin.fileno(), _CHUNK):
        *lines, rest = (rest + data).lstrip(b".").split(b"\n")
        rest = rest.lstrip(b".")
        try:
            if lines:
                told([line.lstrip(b".") for line in lines])
            tick()
        except Exception as error:  # noqa: BLE001 - the next tick may well succeed
            if time.monotonic() >= quiet_until:
                quiet_until = time.monotonic() + _FAULT_EVERY
                # The error's own text may hold the key, and stays out.
                say("fault", what=type(error).__name__, at=where(error), effect=effect)
