"""``python3 -m apiban.honeypot``: the reporter, driven through its standard input."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from apiban.clock import SystemClock
from apiban.errors import ApibanError
from apiban.gate import Board
from apiban.honeypot.process import ReportProcess
from apiban.honeypot.settings import honeypot_settings_path
from apiban.ticks import run, say

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until the input ends; give the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m apiban.honeypot", description=__doc__)
    parser.add_argument("--board", type=int, metavar="FD", help="the open file of the counters")
    options = parser.parse_args(arguments)
    os.umask(0o007)
    try:
        board = Board(options.board) if options.board is not None else Board.unnamed(now=0)
    except ApibanError as error:
        say("report-idle", effect="this process ends", reason=error)
        return 1
    process = ReportProcess(
        path=honeypot_settings_path(os.environ),
        environ=os.environ,
        board=board,
        clock=SystemClock(),
        log=say,
    )
    run(process.tick, effect="the reporter goes on")
    process.close()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)
