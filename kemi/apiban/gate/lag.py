"""Which workers use an older list than the newest, though they judge packets."""

from __future__ import annotations

from collections.abc import Sequence

from apiban.gate.board import Slot

__all__ = ["Lag"]


class Lag:
    """Finds the workers that use an older list though they judged a packet since the newest came.

    An idle worker runs no Python, and needs no list. The packets that count are those of the look
    before: so a worker that is just taking the list is not taken for one that does not.
    """

    def __init__(self) -> None:
        # By rank and generation of those that are older: packets at the first look and at the last.
        self._seen: dict[tuple[int, int], tuple[int, int]] = {}
        self.generations = 0  # by how many lists the slowest of the last look is behind

    def behind(self, generation: int, slots: Sequence[Slot]) -> int:
        """Count them; ``generation`` was read before ``slots``."""
        lags, seen = [], {}
        for slot in slots:
            if slot.rank > 0 and slot.generation < generation:
                counts, key = slot.counts, (slot.rank, slot.generation)
                packets = counts.dropped + counts.would_drop + counts.passed
                first, last = self._seen.get(key, (packets, packets))
                if last > first:
                    lags.append(generation - slot.generation)
                seen[key] = (first, packets)
        self._seen = seen
        self.generations = max(lags, default=0)
        return len(lags)
