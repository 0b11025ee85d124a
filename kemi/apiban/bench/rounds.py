"""Rounds in alternating order, their medians, and whether they can be trusted."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Figure", "alternate"]

# Half of the rounds lie within this share of the median, or the figure is called noisy.
_TRUSTED: Final = 0.10


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity's values, a round each."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to report."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """The distance between the quartiles, as a share of the median."""
        low, high = self.quartiles
        return (high - low) / abs(self.median) if self.median else 0.0

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between them lie half of the rounds."""
        if len(self.values) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high

    @property
    def noisy(self) -> bool:
        """Whether the rounds differ too much to be trusted."""
        return self.spread > 2 * _TRUSTED

    def per(self, other: Figure) -> Figure:
        """Give the ratio to another figure of the same rounds, round by round."""
        return Figure(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def minus(self, other: Figure) -> Figure:
        """Give the difference from another figure of the same rounds, round by round."""
        return Figure(tuple(a - b for a, b in zip(self.values, other.values, strict=True)))


def alternate(
    measures: Mapping[str, Callable[[], float]], rounds: int, *, say: Callable[[str], None]
) -> dict[str, Figure]:
    """Measure all in turn, every second round backwards; a first round is thrown away.

    So what drifts (the clock of the CPU, a neighbour) reaches all of them alike.
    """
    values: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds + 1):
        order: Sequence[str] = list(measures)[:: -1 if number % 2 else 1]
        for name in order:
            value = measures[name]()
            if number:
                values[name].append(value)
        say(f"round {number} of {rounds}")
    return {name: Figure(tuple(found)) for name, found in values.items()}
