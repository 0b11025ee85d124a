"""Running the kernel's tools."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from apiban.errors import FirewallError
from apiban.firewall.tool import run


def test_a_long_text_has_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten million bytes are more than a minute's work on a slow host; a short text has a minute."""
    given: list[float] = []

    def note(words: list[str], **rest: Any) -> subprocess.CompletedProcess[str]:
        given.append(rest["timeout"])
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "run", note)
    run(["true"])
    run(["true"], "x" * 10_000_000)
    assert given[0] == 60
    assert 100 <= given[1] <= 200


def test_a_tool_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped, and the line says after how long."""
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 60\n", "utf-8")
    hangs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(FirewallError, match="hangs did not end within 0 s: stopped"):
        run(["hangs"], within=0.2)
