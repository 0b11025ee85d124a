"""The gate in every SIP worker: a source's address in, a verdict out; and the shared counters."""

from apiban.gate.board import Board, Slot
from apiban.gate.front import DROP, PASS, Front, Sweeper
from apiban.gate.gate import Gate

__all__ = ["DROP", "PASS", "Board", "Front", "Gate", "Slot", "Sweeper"]
