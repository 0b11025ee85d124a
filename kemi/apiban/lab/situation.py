"""A situation: loads, what is done meanwhile, and what must come of it, read from TOML.

The file is ``sipp-scenarios/NAME/situation.toml``; docs/lab.md tells what may stand in it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from apiban.lab.command import LabError
from apiban.trial.sipp import Expectation, SippError, expectation

__all__ = ["ANSWERS", "Expect", "Plan", "Situation", "Step", "read_situations"]

ANSWERS: Final = ("none", "some", "all", "any")
FILE: Final = "situation.toml"

_One = TypeVar("_One")


@dataclass(frozen=True, slots=True)
class Plan:
    """A load: SIPp with a scenario, in the container of ``source``.

    What is not said is the scenario's own (expect.toml). With ``count`` 0 it runs until all loads
    that have a count, and all steps, are over. ``later``: a step starts it.
    """

    scenario: str
    source: str  # a service
    name: str
    transport: str
    target: str
    ipv6: bool
    rate: int  # calls a second
    count: int
    later: bool
    answers: str  # none, some, all, or any
    success: float  # the least share of calls that go well; below 0 it is not looked at
    reached: float  # the least share of the rate

    @property
    def silent(self) -> bool:
        """Whether all that it sends must be dropped."""
        return self.answers == "none"

    @property
    def good(self) -> bool:
        """Whether its calls are those of honest people."""
        return self.answers == "all"


@dataclass(frozen=True, slots=True)
class Step:
    """An action by its name, and what it needs."""

    do: str
    values: Mapping[str, Any]
    within: float  # seconds that it may take


@dataclass(frozen=True, slots=True)
class Expect:
    """What must have come of all of it."""

    drops: float = 0.0  # the least share of what the silent loads sent that the node counted
    events: tuple[str, ...] = ()  # texts that the node's log lines hold
    no_events: tuple[str, ...] = ("event=fault",)
    once: tuple[str, ...] = ()  # texts that exactly one of them holds
    limit: float = 120.0  # seconds that it may take in all


@dataclass(frozen=True, slots=True)
class Situation:
    """One row of the table."""

    name: str
    what: str
    order: int
    loads: tuple[Plan, ...]
    steps: tuple[Step, ...]
    after: tuple[Step, ...]  # whatever happened
    expect: Expect


def read_situations(scenarios: Path, actions: Mapping[str, frozenset[str]]) -> list[Situation]:
    """Read them all, in their order; ``actions`` has each action's values.

    Raises:
        LabError: with the file and what is wrong in it.

    """
    found = [_situation(path, scenarios, actions) for path in sorted(scenarios.glob(f"*/{FILE}"))]
    return sorted(found, key=lambda one: (one.order, one.name))


def _situation(path: Path, scenarios: Path, actions: Mapping[str, frozenset[str]]) -> Situation:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        known = {"what", "order", "load", "step", "after", "expect"}
        _refuse_unknown(document, known)
        loads = tuple(_plan(one, scenarios) for one in document.get("load", ()))
        steps = tuple(_step(one, actions) for one in document.get("step", ()))
        after = tuple(_step(one, actions) for one in document.get("after", ()))
        _check_names(loads, (*steps, *after))
        return Situation(
            name=path.parent.name,
            what=document["what"],
            order=document.get("order", 50),
            loads=loads,
            steps=steps,
            after=after,
            expect=_made(Expect, document.get("expect", {})),
        )
    except (OSError, ValueError, KeyError, TypeError, SippError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise LabError(f"{path.parent.name}/{FILE}: {what}") from None


def _check_names(loads: Sequence[Plan], steps: Sequence[Step]) -> None:
    names = {one.name for one in loads}
    if len(names) < len(loads):
        raise ValueError("two loads have one name")
    for step in steps:
        if "load" in step.values and step.values["load"] not in names:
            raise ValueError(f"{step.do}: there is no load {step.values['load']!r}")


def _plan(document: Mapping[str, Any], scenarios: Path) -> Plan:
    usual: Expectation = expectation(scenarios, document["scenario"])
    values = {
        "name": document["scenario"],
        "transport": usual.transports[0],
        "target": "kamailio",
        "ipv6": False,
        "rate": usual.rate,
        "count": usual.count,
        "later": False,
        "answers": usual.answers,
        "success": usual.success_ratio,
        "reached": 0.0,
        **document,
    }
    plan = _made(Plan, values)
    if plan.answers not in ANSWERS:
        raise ValueError(f"answers = {plan.answers!r}: must be one of {', '.join(ANSWERS)}")
    if plan.transport not in usual.transports:
        raise ValueError(f"scenario {plan.scenario} is not for transport {plan.transport!r}")
    return plan


def _step(document: Mapping[str, Any], actions: Mapping[str, frozenset[str]]) -> Step:
    values = dict(document)
    name, within = values.pop("do"), float(values.pop("within", 20.0))
    if name not in actions:
        raise ValueError(f"there is no action {name!r}; there are: {', '.join(sorted(actions))}")
    unknown = set(values) - actions[name]
    if unknown:
        raise ValueError(f"{name} takes no {', '.join(sorted(unknown))}")
    return Step(name, values, within)


def _made(kind: type[_One], values: Mapping[str, Any]) -> _One:
    """Make one from a table, whose values have the types of the fields."""
    types = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    _refuse_unknown(values, set(types))
    ready: dict[str, Any] = {}
    for name, field in types.items():
        if name not in values:
            if field.default is MISSING:
                raise KeyError(name)
            continue
        value = values[name]
        if field.type == "float" and type(value) is int:
            value = float(value)
        if str(field.type).startswith("tuple") and isinstance(value, list):
            value = tuple(value)
        wanted = str(field.type).partition("[")[0]
        if type(value).__name__ != wanted:
            raise ValueError(f"{name} = {value!r}: must be of type {wanted}")
        ready[name] = value
    return kind(**ready)


def _refuse_unknown(values: Mapping[str, Any], known: set[str]) -> None:
    unknown = set(values) - known
    if unknown:
        raise ValueError(f"there is no {', '.join(sorted(unknown))}")
