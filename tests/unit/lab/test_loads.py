"""SIPp's command lines inside the containers, and what is wrong with a load."""

from __future__ import annotations

from dataclasses import replace

import pytest
from apiban.lab.loads import Outcome, problems, sipp_command
from apiban.trial.sipp import SCENARIOS

from tests.unit.lab.parts import CALLS, GOOD, PLAN, RESULT, outcome


def words(command: list[str], name: str) -> str:
    """Give what stands after an option."""
    return command[command.index(name) + 1]


def test_the_command_is_that_of_the_container() -> None:
    """Paths are those inside, addresses those of the lab, the rate the plan's."""
    plan = replace(PLAN, scenario="scanner-register-flood", rate=123, count=456)
    command = sipp_command(plan, "192.0.2.30", "192.0.2.66", 20001)
    assert command[:2] == ["sipp", "192.0.2.30:5060"]
    assert words(command, "-i") == "192.0.2.66"
    assert words(command, "-p") == "20001"
    assert (words(command, "-r"), words(command, "-m")) == ("123", "456")
    users = "/usr/lib/apiban/sipp-scenarios/scanner-register-flood/users.csv"
    assert words(command, "-inf") == users
    assert not [word for word in command if str(SCENARIOS) in word]


def test_a_load_without_a_count_does_not_end_by_itself() -> None:
    """It has more calls than any run makes, and an IPv6 target has brackets."""
    command = sipp_command(replace(PLAN, ipv6=True), "fd00::30", "fd00::66", 20001)
    assert command[1] == "[fd00::30]:5060"
    assert int(words(command, "-m")) >= 10_000_000


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (outcome(), ""),
        (outcome(CALLS, GOOD), ""),
        (outcome(result=None, trouble="no word"), "flood: no word"),
        (outcome(result=replace(RESULT, calls_created=0)), "no call was made"),
        (outcome(result=replace(RESULT, calls_succeeded=4999)), "4999 of 5000 calls succeeded"),
        (outcome(result=replace(RESULT, messages_received=1)), "1 answers to 5000 calls"),
        (outcome(CALLS, replace(GOOD, calls_succeeded=99)), "99 of 100 calls succeeded"),
        (outcome(CALLS, replace(GOOD, messages_received=99)), "99 answers to 100 calls"),
        (outcome(replace(PLAN, answers="some")), "0 answers to 5000 calls, expected: some"),
        (outcome(replace(PLAN, rate=2000, reached=0.9)), "1000 of 2000 calls a second"),
        (outcome(replace(PLAN, rate=1050, reached=0.9)), ""),
        (
            outcome(
                replace(PLAN, answers="some"),
                replace(RESULT, messages_received=12),
                received_when_silent=10,
            ),
            "2 answers after it was dropped",
        ),
        (
            outcome(
                replace(PLAN, answers="some"),
                replace(RESULT, messages_received=10),
                received_when_silent=10,
            ),
            "",
        ),
    ],
)
def test_problems(one: Outcome, reason: str) -> None:
    """A load that went as planned has none; what did not is said with its numbers."""
    found = list(problems(one))
    assert reason in found[0] if reason else not found, found
    assert len(found) <= 1


def test_the_rate_is_that_of_the_sending() -> None:
    """Calls a second count while calls were made; nothing sent is no rate."""
    assert outcome().rate == 1000.0
    assert outcome(result=replace(RESULT, sending=0.0)).rate == 0.0
