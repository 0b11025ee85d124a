"""The command line's answers that need no lab."""

from __future__ import annotations

from pathlib import Path

import pytest
from apiban.lab.__main__ import main
from apiban.lab.actions import ACTIONS, VALUES
from apiban.lab.situation import read_situations
from apiban.trial.sipp import SCENARIOS

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
