"""What the lab's tests are made of: plans, results, situations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from apiban.lab.loads import Outcome
from apiban.lab.play import Report
from apiban.lab.situation import Expect, Plan, Situation
from apiban.trial.sipp import Result

PLAN = Plan(
    scenario="scanner-options-flood",
    source="attacker",
    name="flood",
    transport="udp",
    target="kamailio",
    ipv6=False,
    rate=1000,
    count=0,
    later=False,
    answers="none",
    success=1.0,
    reached=0.0,
)
CALLS = replace(PLAN, scenario="good-call", source="caller", name="calls", rate=20, answers="all")
RESULT = Result(
    messages_sent=5000,
    messages_received=0,
    calls_created=5000,
    calls_succeeded=5000,
    calls_failed=0,
    elapsed=5.5,
    sending=5.0,
    exit_status=0,
    response_times=(),
)
GOOD = replace(
    RESULT, messages_sent=300, messages_received=400, calls_created=100, calls_succeeded=100
)


def outcome(plan: Plan = PLAN, result: Result | None = RESULT, **changes: Any) -> Outcome:
    """Give a load that is over; changes are the outcome's."""
    return replace(Outcome(plan, result), **changes)


def report(*outcomes: Outcome, expect: Expect | None = None, **changes: Any) -> Report:
    """Give a situation that was played, with as many drops as packets unless told otherwise."""
    plans = tuple(one.plan for one in outcomes)
    situation = Situation("try", "a try", 1, plans, (), (), expect or Expect())
    dropped = sum(one.result.messages_sent for one in outcomes if one.plan.silent and one.result)
    return replace(Report(situation, outcomes, dropped, 6.0, (), (), ()), **changes)


def write_scenario(folder: Path, name: str = "scan", *, situation: str = "") -> Path:
    """Make a folder of scenarios with one of SIPp's, and a situation; give the folder."""
    (folder / name).mkdir(parents=True)
    (folder / name / "expect.toml").write_text(
        'transports = ["udp"]\nanswers = "none"\nsuccess_ratio = 1.0\nrate = 70\ncount = 7\n'
        "options = []\n"
    )
    (folder / "trial").mkdir()
    (folder / "trial" / "situation.toml").write_text(situation)
    return folder
