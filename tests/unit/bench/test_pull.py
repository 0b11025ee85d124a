"""What the time to load a list is reckoned from."""

from __future__ import annotations

import pytest
from apiban.bench.pull import Load, Plan, Pull


@pytest.mark.parametrize(
    ("ranges", "ours", "recipe"),
    [(250, 0.0, 300.0), (251, 0.0, 600.0), (1251, 120.0, 1800.0), (5000, 360.0, 6000.0)],
)
def test_the_waits_of_both(ranges: int, ours: float, recipe: float) -> None:
    """Ours asks for five pages at once and waits 120 s before five more; the recipe for each."""
    assert Plan(with_recipe=False, ranges=ranges).waiting == ours
    assert Plan(with_recipe=True, ranges=ranges).waiting == recipe


def test_only_the_waits_are_made_longer() -> None:
    """Three waits of 1.2 s measured are really 120 s each; what else it took stays as it is."""
    assert Plan(with_recipe=False, ranges=5000, scale=100.0).real(3.6 + 0.5) == pytest.approx(360.5)


def test_a_row_says_what_was_measured_and_what_was_not() -> None:
    """A reckoned load has no measured time and no scale."""
    measured = Load(Plan(with_recipe=True, ranges=250, scale=100.0), 1, 0, 3.1, 300.1)
    reckoned = Load(Plan(with_recipe=False, ranges=100_000), 400, 0, None, 9480.0)
    first, second = Pull((measured, reckoned)).rows()
    assert (first["setup"], first["measured_seconds"], first["scale"]) == (
        "htable recipe",
        3.1,
        100,
    )
    assert (second["setup"], second["measured_seconds"], second["scale"]) == ("ours", None, None)
