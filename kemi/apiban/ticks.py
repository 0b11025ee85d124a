"""The loops of our processes: a tick at a time, and one that fails does not end them.

``run`` is for a process that a process of Kamailio's keeps (``kemi.keeper``): each ``.`` of
standard input is a tick, and every line there is something that the process is told; its end is the
end of the process. Each line of standard output is ``LEVEL text``, for the log of the process that
reads it. ``run_service`` is for one that systemd keeps.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from apiban.log import EVENTS, Log, line, where

__all__ = ["run", "run_service", "say"]

_FAULT_EVERY: Final = 60.0
_CHUNK: Final = 65_536


def say(event: str, **fields: object) -> None:
    """Write a line for the parent's log, while there is one: without it the input ends as well."""
    try:
        sys.stdout.write(f"{EVENTS[event]} {line(event, fields)}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still in the buffer must not fail at the end of the process.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def run(
    tick: Callable[[], None],
    *,
    effect: str,
    told: Callable[[list[bytes]], None] = lambda _: None,
) -> None:
    """Work a tick at a time until the input ends; what fails is said, and the next tick comes.

    ``told`` is given the lines that came since, without their ends, before the tick.
    """
    guard = _Guard(effect, say)
    rest = b""
    while data := os.read(sys.stdin.fileno(), _CHUNK):
        *lines, rest = (rest + data).lstrip(b".").split(b"\n")
        rest = rest.lstrip(b".")
        with guard:
            if lines:
                told([line.lstrip(b".") for line in lines])
            tick()


def run_service(tick: Callable[[], None], *, every: float, effect: str, log: Log) -> None:
    """Work a tick each so many seconds until SIGTERM or SIGINT; the tick under way is ended first.

    What fails is said, and the next tick comes.
    """
    end = threading.Event()
    old = {
        number: signal.signal(number, lambda *_: end.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    guard = _Guard(effect, log)
    try:
        while not end.is_set():
            with guard:
                tick()
            end.wait(every)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Guard:
    """Says what fails in its block, and ends it there; the same a minute later at the earliest."""

    def __init__(self, effect: str, log: Log) -> None:
        self._effect = effect
        self._log = log
        self._quiet_until = 0.0

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):  # none, or what is to end the process
            return False
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + _FAULT_EVERY
            # The error's own text may hold the key, and stays out.
            what = type(error).__name__
            self._log("fault", what=what, at=where(error), effect=self._effect)
        return True
