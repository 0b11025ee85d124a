"""The command line's answers that need no lab."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from apiban.lab.__main__ import main
from apiban.lab.actions import ACTIONS, VALUES
from apiban.lab.command import LabError
from apiban.lab.lab import Lab
from apiban.lab.play import Report
from apiban.lab.services import Services
from apiban.lab.situation import Situation, read_situations
from apiban.trial.sipp import SCENARIOS

from tests.unit.lab.parts import report

DOCS = Path(__file__).resolve().parents[3] / "docs" / "lab.md"


@pytest.fixture(autouse=True)
def no_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be no lab, and no Docker."""
    monkeypatch.setenv("LAB_STATE", str(tmp_path / "lab"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")


def test_the_situations_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """``check --list`` names them all, and starts nothing."""
    assert main(["check", "--list"]) == 0
    out = capsys.readouterr().out
    for one in read_situations(SCENARIOS, VALUES):
        assert f"{one.name} " in out


def test_an_unknown_situation(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is none is refused before anything is built."""
    assert main(["check", "no-such"]) == 1
    assert "bin/lab: there is no situation 'no-such'; there are: plain" in capsys.readouterr().err


def test_a_flood_needs_a_lab(capsys: pytest.CaptureFixture[str]) -> None:
    """Without one it says how to get one."""
    assert main(["flood"]) == 1
    assert capsys.readouterr().err == "bin/lab: there is no lab: bin/lab up\n"


def test_a_flood_of_another_transport(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scenario that is not for it is refused."""
    monkeypatch.setattr(Lab, "is_up", True)
    assert main(["flood", "--scenario", "malformed-junk", "--transport", "tcp"]) == 1
    assert capsys.readouterr().err == "bin/lab: malformed-junk is not for tcp\n"


def test_a_long_flood_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is asked for, that is no failure."""
    played: list[Situation] = []

    def plays(situation: Situation, _: Services) -> Report:
        played.append(situation)
        return report(expect=situation.expect, seconds=100_000.0)

    monkeypatch.setattr(Lab, "is_up", True)
    monkeypatch.setattr("apiban.lab.__main__.play", plays)
    assert main(["flood", "--seconds", "121", "--rate", "2"]) == 0
    assert played[0].loads[0].count == 242


def test_the_clean_up_is_not_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the lab is taken away, an impatient ^C, TERM or HUP does nothing."""
    numbers, done = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP), []

    def down(_: Lab) -> None:
        for number in numbers:
            signal.raise_signal(number)
        done.append(True)

    monkeypatch.setattr(Lab, "down", down)
    before = [signal.getsignal(number) for number in numbers]
    try:
        assert main(["down"]) == 0
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert done == [True]


def test_an_up_that_fails_says_what_takes_the_rest_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason is one line, and the way out another."""

    def fails(*_: object, **__: object) -> None:
        raise LabError("no luck")

    monkeypatch.setattr(Lab, "up", fails)
    assert main(["up"]) == 1
    said = capsys.readouterr()
    assert said.err == "bin/lab: no luck\n"
    assert said.out.endswith("bin/lab down\n")


def test_down_without_a_lab() -> None:
    """There is nothing to take away, and that is no failure."""
    assert main(["down"]) == 0


def test_the_document_has_every_situation_and_action() -> None:
    """docs/lab.md has a row for each."""
    text = DOCS.read_text()
    for one in read_situations(SCENARIOS, VALUES):
        assert f"| `{one.name}` |" in text, one.name
    for name in ACTIONS:
        assert f"| `{name}` |" in text, name
