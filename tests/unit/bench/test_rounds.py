"""Rounds, their medians, and what is called noisy."""

from __future__ import annotations

import pytest
from apiban.bench.rounds import Figure, alternate


def test_median_and_spread() -> None:
    """The spread is the distance of the quartiles, as a share of the median."""
    figure = Figure((10.0, 12.0, 8.0, 11.0, 9.0))
    assert figure.median == 10.0
    assert figure.spread == pytest.approx(0.2)
    assert figure.quartiles == (9.0, 11.0)
    assert Figure((3.0,)).spread == 0.0
    assert Figure((0.0, 0.0)).spread == 0.0


@pytest.mark.parametrize(
    ("values", "noisy"), [((10, 10.5, 9.5, 10), False), ((5, 10, 15, 20), True)]
)
def test_noise(values: tuple[float, ...], *, noisy: bool) -> None:
    """Rounds that differ much are not to be trusted."""
    assert Figure(values).noisy is noisy


def test_rounds_are_compared_with_their_own() -> None:
    """A slow round is slow for both, and leaves the ratio and the difference alone."""
    ours, theirs = Figure((1.0, 10.0, 2.0)), Figure((2.0, 20.0, 4.0))
    assert ours.per(theirs).values == (0.5, 0.5, 0.5)
    assert theirs.minus(ours).values == (1.0, 10.0, 2.0)


def test_order_alternates_and_the_first_round_is_thrown_away() -> None:
    """What drifts reaches all alike; what is cold reaches none."""
    order: list[str] = []

    def measure(name: str, value: float) -> float:
        order.append(name)
        return value if len(order) > 2 else 1000.0

    said: list[str] = []
    found = alternate(
        {"a": lambda: measure("a", 1.0), "b": lambda: measure("b", 2.0)}, 3, say=said.append
    )
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert found == {"a": Figure((1.0, 1.0, 1.0)), "b": Figure((2.0, 2.0, 2.0))}
    assert said[-1] == "round 3 of 3"
