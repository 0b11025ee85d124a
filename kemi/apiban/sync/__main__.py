"""``python3 -m apiban.sync``: the sync process, driven through its standard input."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from apiban.clock import SystemClock
from apiban.errors import ApibanError
from apiban.gate.board import Board
from apiban.settings import load_settings, settings_path
from apiban.snapshot.publish import Publisher
from apiban.store import Store, overriding_mode
from apiban.sync.learned import Learned
from apiban.sync.own import own_addresses
from apiban.sync.process import Process
from apiban.sync.sightings import Sightings
from apiban.ticks import run, say

__all__ = ["main"]


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
    process = Process(
        path=settings_path(os.environ), environ=os.environ, board=board, clock=clock, log=say
    )
    learned = Learned(
        process,
        clock=clock,
        log=say,
        make_sightings=lambda settings: Sightings.wanted(settings, clock=clock, log=say),
    )
    _run(process, learned)
    return 0


def _publish_once(board: Board, clock: SystemClock) -> int:
    settings = load_settings(settings_path(os.environ), os.environ)
    path = settings.paths.state / "store.db"
    if not path.exists():
        return 0
    override = overriding_mode(path, clock.now(), settings.mode)
    if override is not None:
        settings = replace(settings, mode=override.mode)
    with Store(path) as store:
        done = Publisher(board, say).publish(store, settings, own_addresses(), now=clock.now())
    return 0 if done else 1


def _run(process: Process, learned: Learned) -> None:
    def tick() -> None:
        learned.tick()
        process.tick()

    say("sync-start", pid=os.getpid())
    run(tick, effect="the sync goes on", told=learned.told)
    learned.close()
    process.close()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)
