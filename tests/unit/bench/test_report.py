"""The report: tables that render, goals that can be missed, data that machines can read."""

from __future__ import annotations

import json

import pytest
from apiban.bench.machine import Machine
from apiban.bench.report import Goal, Part, Report, figure_data, figure_text
from apiban.bench.rounds import Figure

MACHINE = Machine("a CPU", 2, "6.1", "Debian", "kamailio 5.6", "3.11", "SIPp")
PART = Part(
    "A part",
    ("set-up", "us"),
    (("one", "1.00"), ("two", "2.00")),
    ("a remark",),
    (
        Goal("half", 0.4, 0.5),
        Goal("less", 0.6, 0.5),
        Goal("who knows", 0.1, 0.5, noisy=True),
        Goal("hidden", None, 0),
    ),
    {"one": figure_data(Figure((1.0, 1.0)))},
)


def test_markdown() -> None:
    """Machine, goals and tables, in that order."""
    text = Report(MACHINE, "in full", (PART,)).markdown()
    assert text.startswith("Measured on a CPU (2 cores), Linux 6.1")
    assert "| half | 0.5 | 0.400 | reached |" in text
    assert "| less | 0.5 | 0.600 | MISSED |" in text
    assert "| who knows | 0.5 | 0.100 | reached, but too noisy to trust |" in text
    assert "| hidden | 0 | - | not shown |" in text
    assert "### A part\n\n| set-up | us |\n| --- | ---: |\n| one | 1.00 |\n" in text
    assert text.index("### Goals") < text.index("### A part")
    assert "- a remark" in text


def test_data_is_json() -> None:
    """All rounds are in it, and whether each goal was reached."""
    data = json.loads(json.dumps(Report(MACHINE, "in full", (PART,)).data()))
    assert data["machine"]["cpu"] == "a CPU"
    assert [goal["reached"] for goal in data["goals"]] == [True, False, True, None]
    assert data["parts"]["A part"]["one"]["rounds"] == [1.0, 1.0]


@pytest.mark.parametrize(("limit", "noisy"), [(1.0, True), (1.05, False), (0.9, False)])
def test_a_goal_amid_its_rounds_is_noisy(limit: float, *, noisy: bool) -> None:
    """With the limit between the quartiles another run may tell otherwise."""
    goal = Goal.of("a ratio", Figure((0.98, 0.99, 1.0, 1.01, 1.02)), limit)
    assert (goal.value, goal.noisy) == (1.0, noisy)


@pytest.mark.parametrize(
    ("values", "text"), [((1.0, 1.01, 0.99), "1.00"), ((1.0, 2.0, 3.0), "~2.00")]
)
def test_noisy_figures_are_marked(values: tuple[float, ...], text: str) -> None:
    """A reader sees which ones not to trust."""
    assert figure_text(Figure(values)) == text
