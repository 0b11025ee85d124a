"""Situations are read whole, with the scenario's own numbers, and refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from apiban.lab.actions import VALUES
from apiban.lab.command import LabError
from apiban.lab.situation import read_situations
from apiban.trial.sipp import SCENARIOS

from tests.unit.lab.parts import write_scenario

GOOD = """
what = "a try"
order = 3
[[load]]
scenario = "scan"
source = "attacker"
[[load]]
scenario = "scan"
name = "more"
source = "caller"
rate = 5000
count = 0
answers = "some"
reached = 1
[[step]]
do = "await-drops"
more = 10
within = 4
[[after]]
do = "lie"
mode = "honest"
[expect]
drops = 0.9
events = ["event=start"]
"""
LOAD = '[[load]]\nscenario = "scan"\nsource = "attacker"\n'


def test_a_situation_is_read(tmp_path: Path) -> None:
    """What is not said is the scenario's own; what is said is taken."""
    (one,) = read_situations(write_scenario(tmp_path, situation=GOOD), VALUES)
    usual, more = one.loads
    assert (one.name, one.what, one.order) == ("trial", "a try", 3)
    assert (usual.name, usual.rate, usual.count, usual.answers) == ("scan", 70, 7, "none")
    assert (more.name, more.rate, more.count, more.answers) == ("more", 5000, 0, "some")
    assert more.reached == 1.0
    assert (usual.silent, usual.good, more.silent) == (True, False, False)
    assert (one.steps[0].do, one.steps[0].values, one.steps[0].within) == (
        "await-drops",
        {"more": 10},
        4.0,
    )
    assert one.after[0].values == {"mode": "honest"}
    assert (one.expect.drops, one.expect.events) == (0.9, ("event=start",))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("order = 1\n", "'what' is missing"),
        ('what = "x"\nwhy = 1\n', "there is no why"),
        ('what = "x"\n[[load]]\nsource = "attacker"\n', "'scenario' is missing"),
        (f'what = "x"\n{LOAD}rate = "5"\n', "rate = '5': must be of type int"),
        (f'what = "x"\n{LOAD}speed = 5\n', "there is no speed"),
        (f'what = "x"\n{LOAD}answers = "few"\n', "must be one of none, some, all, any"),
        (f'what = "x"\n{LOAD}transport = "tcp"\n', "not for transport 'tcp'"),
        (f'what = "x"\n{LOAD}{LOAD}', "two loads have one name"),
        ('what = "x"\n[[load]]\nscenario = "no"\nsource = "a"\n', "scenario no"),
        ('what = "x"\n[[step]]\ndo = "dance"\n', "there is no action 'dance'"),
        ('what = "x"\n[[step]]\ndo = "reload"\nmode = 1\n', "reload takes no mode"),
        ('what = "x"\n[[step]]\ndo = "start"\nload = "no"\n', "start: there is no load 'no'"),
        ('what = "x"\n[expect]\ndrop = 1\n', "there is no drop"),
        ("what = \n", "Invalid"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, reason: str) -> None:
    """A situation that cannot be played is refused in one line, with the file and the reason."""
    scenarios = write_scenario(tmp_path, situation=text)
    with pytest.raises(LabError) as error:
        read_situations(scenarios, VALUES)
    assert str(error.value).startswith("trial/situation.toml: ")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_all_of_ours_are_good() -> None:
    """Every situation of the repository can be read, has a README, and a name of its own."""
    situations = read_situations(SCENARIOS, VALUES)
    assert len(situations) >= 20
    for one in situations:
        assert (SCENARIOS / one.name / "README.md").exists(), one.name
    orders = [one.order for one in situations]
    assert orders == sorted(orders)


def test_every_scenario_is_played() -> None:
    """No scenario of SIPp is left out, but for the server's own."""
    played = {plan.scenario for one in read_situations(SCENARIOS, VALUES) for plan in one.loads}
    there = {path.parent.name for path in SCENARIOS.glob("*/scenario.xml")}
    assert there - played == {"upstream-uas"}
