"""Whether a node does what is measured of it, so that an answer's cost is never taken for a drop's.

It is asked of every node before its first packet is counted.
"""

from __future__ import annotations

import contextlib
import re
import select
import time
from typing import Final

from apiban.bench.flood import sources
from apiban.bench.lists import LISTED, UNLISTED
from apiban.bench.machine import BenchError
from apiban.bench.nodes import Node
from apiban.bench.probe import Asker
from apiban.errors import ApibanError
from apiban.gate import Board

__all__ = ["check_answers", "check_node"]

_PATIENCE: Final = 10.0
_SILENCE: Final = 0.2
_STATUS: Final = re.compile(rb"SIP/2\.0 (\d{3}) ")


def check_node(node: Node) -> None:
    """Check that a node with one worker has its list, drops who is listed and answers who is not.

    Raises:
        BenchError: it does not; the node is named.

    """
    if node.setup.list_in == "store":
        _wait_for_list(node)
    check_answers(node.setup.name, node.target, node.setup.answers, lists=bool(node.setup.list_in))


def check_answers(name: str, target: str, expected: str, *, lists: bool) -> None:
    """Check the status that an OPTIONS of an unlisted source gets; nothing: it gets no answer.

    With ``lists`` a listed source gets none either way. It asks first, and one worker takes all in
    order: its answer would be there before that of the other one.

    Raises:
        BenchError: it is otherwise.

    """
    with Asker(LISTED[-1], target) as listed, Asker(sources(UNLISTED)[-1], target) as other:
        listed.ask()
        other.ask()
        found = _status(other, _PATIENCE if expected else _SILENCE)
        if found != expected:
            raise BenchError(
                f"{name}: an unlisted source got {found or 'no answer'}, "
                f"not {expected or 'silence'}: not measured"
            )
        if lists and (found := _status(listed, 0)):
            raise BenchError(f"{name}: a listed source got {found}, not silence: not measured")


def _status(asker: Asker, seconds: float) -> str:
    """Give the status of the answer that comes, or nothing."""
    if not select.select([asker.socket], [], [], seconds)[0]:
        return ""
    found = _STATUS.match(asker.socket.recv(65536))
    return found[1].decode() if found else "what is no answer"


def _wait_for_list(node: Node) -> None:
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up:
        with contextlib.suppress(ApibanError):
            if Board.open(node.runtime / "counters").generation:
                return
        time.sleep(0.02)
    raise BenchError(f"{node.setup.name}: no list within {_PATIENCE:g} s")
