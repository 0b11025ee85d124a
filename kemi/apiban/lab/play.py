"""Plays a situation, and holds what came of it against what must have come."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from apiban.lab.actions import act
from apiban.lab.command import LabError
from apiban.lab.loads import GRACE, Outcome, problems
from apiban.lab.services import Services, wait_for
from apiban.lab.situation import Situation
from apiban.lab.stage import Stage

__all__ = ["Report", "judge", "play"]

_SETTLE = 3.0


@dataclass(frozen=True, slots=True)
class Report:
    """A situation that was played: its loads, the node's drops meanwhile, and what was wrong."""

    situation: Situation
    outcomes: tuple[Outcome, ...]
    dropped: int
    seconds: float
    notes: tuple[str, ...]
    events: tuple[str, ...]  # the node's log lines
    troubles: tuple[str, ...]  # of the playing itself

    @property
    def failures(self) -> tuple[str, ...]:
        """Say what was not as it must be; empty when all was."""
        return (*self.troubles, *judge(self))

    @property
    def silent_sent(self) -> int:
        """Give the packets of the loads that must get no answer."""
        return sum(
            one.result.messages_sent for one in self.outcomes if one.plan.silent and one.result
        )


def judge(report: Report) -> Iterator[str]:
    """Hold what came of a situation against its expectations."""
    expect = report.situation.expect
    for outcome in report.outcomes:
        yield from problems(outcome)
    if report.dropped < expect.drops * report.silent_sent:
        yield f"{report.dropped} dropped of {report.silent_sent} packets of listed sources"
    for text in expect.events:
        if not any(text in line for line in report.events):
            yield f"the log has no {text}"
    for text in expect.no_events:
        for line in [line for line in report.events if text in line][:1]:
            yield f"the log has {line}"
    for text in expect.once:
        count = sum(text in line for line in report.events)
        if count != 1:
            yield f"the log has {text} {count} times, not once"
    if report.seconds > expect.limit:
        yield f"it took {report.seconds:.0f} s, more than {expect.limit:g}"


def play(situation: Situation, services: Services) -> Report:
    """Play it; its loads and what it changed are over when this returns."""
    began = time.monotonic()
    plans = {plan.name: plan for plan in situation.loads}
    try:
        stage = Stage(services, plans)
    except LabError as error:  # Kamailio does not answer
        seconds = time.monotonic() - began
        return Report(situation, (), 0, seconds, (), (), (str(error),))
    troubles: list[str] = []
    outcomes: list[Outcome] = []
    try:
        with _noted(troubles):
            stage.start(*(plan.name for plan in situation.loads if not plan.later))
            for step in situation.steps:
                act(stage, step)
        outcomes = _end(stage, troubles)
        dropped = _settled(stage, situation, outcomes, troubles)
        events: Sequence[str] = ()
        with _noted(troubles):
            events = [event.text for event in stage.events()]
    finally:
        stage.end()
        for step in situation.after:
            with _noted(troubles):
                act(stage, step)
    return Report(
        situation,
        tuple(outcomes),
        dropped,
        time.monotonic() - began,
        tuple(stage.notes),
        tuple(events),
        tuple(troubles),
    )


@contextlib.contextmanager
def _noted(troubles: list[str]) -> Iterator[None]:
    try:
        yield
    except LabError as error:
        troubles.append(str(error))


def _end(stage: Stage, troubles: list[str]) -> list[Outcome]:
    """Wait for the loads that have an end, then end the others: the honest ones first."""
    found: dict[str, Outcome] = {}
    loads = stage.running
    counted = [load for load in loads.values() if load.plan.count]
    if troubles:  # what it waited for did not come: no need to wait for the rest
        for load in counted:
            load.end()
    for load in counted:
        seconds = load.plan.count / max(load.plan.rate, 1) + GRACE
        found[load.plan.name] = load.outcome(time.monotonic() + seconds * 2)
    endless = [load for load in loads.values() if not load.plan.count]
    for good in (True, False):
        group = [load for load in endless if load.plan.good is good]
        for load in group:
            load.end()
        for load in group:
            found[load.plan.name] = load.outcome(time.monotonic() + GRACE)
    return [replace(found[name], received_when_silent=stage.silent.get(name)) for name in loads]


def _settled(
    stage: Stage, situation: Situation, outcomes: Sequence[Outcome], troubles: list[str]
) -> int:
    """Let the workers empty their sockets before their counts are read."""
    sent = sum(one.result.messages_sent for one in outcomes if one.plan.silent and one.result)
    if situation.expect.drops and sent:
        with contextlib.suppress(LabError):
            wait_for(lambda: stage.dropped() >= sent, "the last drops", _SETTLE)
    with _noted(troubles):
        return stage.dropped()
    return 0
