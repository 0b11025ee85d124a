"""A look at the shared counters, and what two looks tell: rates, and workers that lag behind."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from apiban.cli.host import Host
from apiban.errors import BoardError
from apiban.gate.board import Board, Counts, Slot
from apiban.gate.hits import Hit, Hits

__all__ = ["Look", "Rates", "look", "open_hits", "rates"]


@dataclass(frozen=True, slots=True)
class Look:
    """What stands on the board at one moment; ``uptime`` is in seconds."""

    uptime: float
    generation: int
    position: int
    slots: tuple[Slot, ...]
    total: Counts
    hits: dict[str, Hit]

    @property
    def workers(self) -> list[Slot]:
        """The SIP workers."""
        return [slot for slot in self.slots if slot.rank > 0]


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened between two looks, a second; ``sources`` are drops by source."""

    seconds: float
    dropped: float
    would_drop: float
    passed: float
    faults: int
    sources: dict[str, float]


def look(board: Board, *, uptime: float, hits: Hits | None = None) -> Look:
    """Look at the board, and at the hits where they are given."""
    # In this order: what the slots say is then never older than the generation.
    generation, position = board.generation, board.position
    slots = tuple(board.slots())
    seen = {} if hits is None else {hit.source: hit for hit in hits.all()}
    return Look(uptime, generation, position, slots, board.total(), seen)


def rates(first: Look, second: Look) -> Rates:
    """Compare two looks; a Kamailio that started anew in between counts from nothing."""
    seconds = max(second.uptime - first.uptime, 0.001)
    grown = second.total - first.total
    if min(grown.dropped, grown.passed, grown.would_drop, grown.faults) < 0:
        grown = second.total
    sources = {}
    for source, hit in second.hits.items():
        before = first.hits.get(source)
        count = hit.dropped + hit.would_drop
        if before is not None and before.dropped + before.would_drop <= count:
            count -= before.dropped + before.would_drop
        sources[source] = count / seconds
    return Rates(
        seconds,
        grown.dropped / seconds,
        grown.would_drop / seconds,
        grown.passed / seconds,
        grown.faults,
        sources,
    )


def open_hits(host: Host) -> Hits | None:
    """Open the table of sources of the running Kamailio; None when there is none to read."""
    if host.board is None:
        return None
    with contextlib.suppress(BoardError):
        return Hits.open(host.settings.paths.runtime / "hits")
    return None
