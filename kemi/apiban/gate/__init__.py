"""The gate in every SIP worker: a source's address in, a verdict out; and the shared counters."""

from apiban.gate.board import Board, Slot
from apiban.gate.front import DROP, PASS, Front, Sweeper
from apiban.gate.gate import Gate
from apiban.gate.hits import Hit, Hits
from apiban.gate.tally import Tally

__all__ = ["DROP", "PASS", "Board", "Front", "Gate", "Hit", "Hits", "Slot", "Sweeper", "Tally"]
