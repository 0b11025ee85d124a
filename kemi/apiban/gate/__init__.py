"""The gate in every SIP worker: a source's address in, a verdict out; and the shared counters."""

from apiban.gate.board import Board, Slot
from apiban.gate.front import Front, Sweeper
from apiban.gate.gate import Gate

__all__ = ["Board", "Front", "Gate", "Slot", "Sweeper"]
