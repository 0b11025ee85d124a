"""What the honeypot's processes count, in the words of the board that the gate leaves free."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Final

from apiban.gate.board import FAULTS, Board

__all__ = ["ANSWERS", "NOT_KEPT", "SIGHTINGS", "SILENT", "UNPROVEN", "UNWRITTEN"]
__all__ += ["Counts", "last_report", "reported", "set_last_report", "set_reported", "total"]

# Words of a slot: messages of each kind, and answers sent.
SIGHTINGS: Final = 8  # messages that were queued
UNPROVEN: Final = 9  # messages of unproven sources
NOT_KEPT: Final = 10  # of these, those of a source that was not kept
ANSWERS: Final = 11
SILENT: Final = 12  # messages left without an answer, by a bound
UNWRITTEN: Final = 13  # sightings that could not be queued, and got no answer
_REPORTED: Final = 14  # in slot 0: how many "not kept" the feed knows of
_LAST_REPORT: Final = 15  # in slot 0: when the feed last settled a report, in seconds since 1970


@dataclass(frozen=True, slots=True)
class Counts:
    """What all processes did since Kamailio's start."""

    sightings: int
    unproven: int
    not_kept: int
    answers: int
    silent: int
    unwritten: int
    faults: int

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __bool__(self) -> bool:
        return any(astuple(self))


def total(board: Board) -> Counts:
    """Sum over all processes."""
    slots = [Board.slot_at(slot.rank) for slot in board.slots()]
    kinds = (SIGHTINGS, UNPROVEN, NOT_KEPT, ANSWERS, SILENT, UNWRITTEN, FAULTS)
    return Counts(*(sum(board.words[slot + kind] for slot in slots) for kind in kinds))


def reported(board: Board) -> int:
    """Give how many "not kept" were reported: it outlives the reporter."""
    return board.words[Board.slot_at(0) + _REPORTED]


def set_reported(board: Board, number: int) -> None:
    """Note how many "not kept" were reported so far."""
    board.words[Board.slot_at(0) + _REPORTED] = number


def last_report(board: Board) -> int:
    """Give when the feed last settled a report, in seconds since 1970; 0 for not yet."""
    return board.words[Board.slot_at(0) + _LAST_REPORT]


def set_last_report(board: Board, now: float) -> None:
    """Note that the feed settled a report just now."""
    board.words[Board.slot_at(0) + _LAST_REPORT] = int(now)
