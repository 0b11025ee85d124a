"""``python3 -m apiban.sync``: the sync process, driven through its standard input.

Each byte that arrives is a tick; the end of the input is the end of the process. Each line of
output is ``LEVEL text``, for the log of the process that reads it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from apiban.clock import SystemClock
from apiban.errors import ApibanError
from apiban.gate.board import Board
from apiban.log import EVENTS, clean, line
from apiban.settings import load_settings, settings_path
from apiban.snapshot.publish import Publisher
from apiban.store import Store
from apiban.sync.own import own_addresses
from apiban.sync.process import Process

__all__ = ["main"]

_FAULT_EVERY = 60.0


def say(event: str, **fields: object) -> None:
    """Write a line for the parent's log."""
    sys.stdout.write(f"{EVENTS[event]} {line(event, fields)}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until the input ends; give the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m apiban.sync", description=__doc__)
    parser.add_argument("--board", type=int, metavar="FD", help="the open file of the counters")
    parser.add_argument(
        "--publish", action="store_true", help="compile the store's list once, and end"
    )
    options = parser.parse_args(arguments)
    os.umask(0o007)
    clock = SystemClock()
    try:
        board = Board(options.board) if options.board is not None else Board.unnamed(now=0)
        if options.publish:
            return _publish_once(board, clock)
    except ApibanError as error:
        say("sync-idle", reason=error, effect="this process ends")
        return 1
    _run(
        Process(
            path=settings_path(os.environ), environ=os.environ, board=board, clock=clock, log=say
        )
    )
    return 0


def _publish_once(board: Board, clock: SystemClock) -> int:
    settings = load_settings(settings_path(os.environ), os.environ)
    path = settings.paths.state / "store.db"
    if not path.exists():
        return 0
    with Store(path) as store:
        done = Publisher(board, say).publish(store, settings, own_addresses(), now=clock.now())
    return 0 if done else 1


def _run(process: Process) -> None:
    say("sync-start", pid=os.getpid())
    quiet_until = 0.0
    while os.read(sys.stdin.fileno(), 4096):
        try:
            process.tick()
        except Exception as error:  # noqa: BLE001 - the next tick may well succeed
            if time.monotonic() >= quiet_until:
                quiet_until = time.monotonic() + _FAULT_EVERY
                where = error.__traceback__
                while where is not None and where.tb_next is not None:
                    where = where.tb_next
                at = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else "?"
                say("fault", what=type(error).__name__, at=clean(at), effect="the sync goes on")
    process.close()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)
