"""``bin/counters``: prints the shared counters of a running node as JSON."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from apiban.errors import ApibanError
from apiban.gate.board import Board
from apiban.settings import load_settings, settings_path

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the total, the front's and each SIP worker's counts; give the exit status."""
    parser = argparse.ArgumentParser(
        prog="counters", description="Print what each SIP worker dropped and passed, as JSON."
    )
    parser.add_argument(
        "--runtime", type=Path, help="the runtime folder (default: the settings' paths.runtime)"
    )
    options = parser.parse_args(arguments)
    try:
        runtime = options.runtime
        if runtime is None:
            runtime = load_settings(settings_path(os.environ), os.environ).paths.runtime
        board = Board.open(runtime / "counters")
    except ApibanError as error:
        sys.stderr.write(f"counters: {error}\n")
        return 1
    report = {
        "generation": board.generation,
        "total": asdict(board.total()),
        "front": asdict(board.front()),
        "workers": [asdict(slot) for slot in board.slots() if slot.rank > 0],
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
