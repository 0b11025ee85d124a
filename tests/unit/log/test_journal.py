from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from apiban.journal import make_journal


def _said(path: Path, monkeypatch: pytest.MonkeyPatch, *, stream: str | None) -> str:
    with path.open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        status = os.fstat(file.fileno())
        here = f"{status.st_dev}:{status.st_ino}"
        environ = {} if stream is None else {"JOURNAL_STREAM": stream or here}
        make_journal(environ)("sync-busy", reason="another one", effect="waiting")
        return path.read_text(encoding="utf-8")  # it is flushed: a service's lines come at once


def test_lines_have_their_level_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As sd-daemon(3) has it, where the standard output is the one that systemd gave."""
    text = '<4>apiban: event=sync-busy reason="another one" effect=waiting\n'
    assert _said(tmp_path / "out", monkeypatch, stream="") == text


@pytest.mark.parametrize("stream", [None, "1:1"])
def test_lines_are_plain_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str | None
) -> None:
    """Also when a service's output goes on into a file or a pipe of its own."""
    assert _said(tmp_path / "out", monkeypatch, stream=stream).startswith("apiban: event=")


def test_output_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full where the lines go."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        make_journal({})("sync-start", pid=1)
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space"):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())
