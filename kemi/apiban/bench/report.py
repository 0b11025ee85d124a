"""What a run of the benchmark found: tables for people, plain data for machines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from apiban.bench.machine import Machine
from apiban.bench.rounds import Figure

__all__ = ["Goal", "Part", "Report", "figure_data", "figure_text"]


def figure_text(figure: Figure, digits: int = 2) -> str:
    """Show a figure's median; ``~`` marks one whose rounds differ too much to be trusted."""
    return f"{'~' if figure.noisy else ''}{figure.median:.{digits}f}"


def figure_data(figure: Figure) -> dict[str, Any]:
    """Give a figure with all of its rounds."""
    return {
        "median": figure.median,
        "spread": figure.spread,
        "noisy": figure.noisy,
        "rounds": figure.values,
    }


@dataclass(frozen=True, slots=True)
class Goal:
    """What a number must reach: ``value`` at most ``limit``; None: the run does not show it."""

    name: str
    value: float | None
    limit: float
    noisy: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether it does; None: not shown."""
        return None if self.value is None else self.value <= self.limit

    @classmethod
    def of(cls, name: str, ratio: Figure, limit: float, *, noisy: bool = False) -> Goal:
        """Make one of a ratio; it is noisy, too, if the limit lies between its quartiles."""
        low, high = ratio.quartiles
        return cls(name, ratio.median, limit, noisy or ratio.noisy or low < limit < high)

    def row(self) -> tuple[str, ...]:
        """Give a line of the table of goals."""
        if self.value is None:
            return self.name, f"{self.limit:g}", "-", "not shown"
        verdict = "reached" if self.reached else "MISSED"
        return self.name, f"{self.limit:g}", f"{self.value:.3f}", _noted(verdict, self.noisy)


@dataclass(frozen=True, slots=True)
class Part:
    """One measurement: a table, remarks below it, its goals, and everything as plain data."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...] = ()
    goals: tuple[Goal, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """Give the part as Markdown."""
        remarks = [f"- {one}" for one in self.remarks]
        return "\n".join([f"### {self.title}", "", *_table(self.head, self.rows), "", *remarks, ""])


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    machine: Machine
    taken: str  # when, and with which options
    parts: tuple[Part, ...]
    failures: tuple[str, ...] = ()  # what was not measured, and why

    @property
    def goals(self) -> tuple[Goal, ...]:
        """All goals that were measured."""
        return tuple(goal for part in self.parts for goal in part.goals)

    def markdown(self) -> str:
        """Give the report as Markdown."""
        host = self.machine
        lines = [
            f"Measured on {host.cpu} ({host.cores_used} cores), Linux {host.kernel},",
            f"{host.debian}, {host.kamailio}, Python {host.python}, {host.sipp}; {self.taken}.",
            "",
        ]
        if self.failures:
            lines += [*(f"- **Not measured:** {one}" for one in self.failures), ""]
        if self.goals:
            head = ("goal", "at most", "measured", "")
            lines += ["### Goals", "", *_table(head, [goal.row() for goal in self.goals]), ""]
        return "\n".join([*lines, *(part.markdown() for part in self.parts)])

    def data(self) -> dict[str, Any]:
        """Give the report as plain data."""
        return {
            "machine": asdict(self.machine),
            "taken": self.taken,
            "failures": list(self.failures),
            "goals": [{**asdict(goal), "reached": goal.reached} for goal in self.goals],
            "parts": {part.title: part.data for part in self.parts},
        }


def _noted(text: str, noisy: bool) -> str:  # noqa: FBT001 - two words of one line
    return f"{text}, but too noisy to trust" if noisy else text


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in head[1:])]
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)]
