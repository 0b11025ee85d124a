"""The manual pages: of now, one a verb, and clean for groff."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from apiban.cli.main import apiban
from apiban.cli.manual import main, pages
from click import Context

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "man"


def test_pages_are_of_now() -> None:
    """docs/man is what bin/man would write."""
    written = {path.name: path.read_text(encoding="ascii") for path in FOLDER.glob("*.1")}
    stale = [name for name, text in pages().items() if written.get(name) != text]
    assert stale == [], "run bin/man"
    assert sorted(written) == sorted(pages())


def test_a_page_for_each_verb() -> None:
    """Each verb has one, and the main page names it."""
    made = pages()
    verbs = apiban.list_commands(Context(apiban, **apiban.context_settings))
    assert set(made) == {"apiban.1", *(f"apiban-{verb}.1" for verb in verbs)}
    for verb in verbs:
        assert rf"\fBapiban\-{verb}\fR(1)" in made["apiban.1"]


def test_commands_within_commands() -> None:
    """A group's page has its commands, with their options, and theirs."""
    page = pages()["apiban-feed.1"]
    for command in ("apiban feed serve", "apiban feed key", "apiban feed key create"):
        assert f".SS {command}\n" in page
    assert r"\fB\-\-no\-mirror" in page or r"\-\-no\-mirror" in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_has_no_complaint(tmp_path: Path) -> None:
    """Every page is good roff: not one warning."""
    main([str(tmp_path)])
    for path in sorted(tmp_path.glob("*.1")):
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", path], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), path.name


def test_pages_of_verbs_that_are_gone(tmp_path: Path) -> None:
    """They are removed; what is no page of ours stays."""
    (tmp_path / "apiban-old.1").touch()
    (tmp_path / "note.txt").touch()
    assert main([str(tmp_path)]) == 0
    assert not (tmp_path / "apiban-old.1").exists()
    assert (tmp_path / "note.txt").exists()
    assert {path.name for path in tmp_path.glob("*.1")} == set(pages())


def test_what_roff_would_take_for_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backslash, a hyphen and a quote of a help text stand on the page as they are."""
    monkeypatch.setattr(apiban, "help", ".dot \\n 'quoted' --long")
    page = pages()["apiban.1"]
    assert r"\&.dot \en \(aqquoted\(aq \-\-long" in page.splitlines()
