"""What becomes of a run when a part of it fails, and of the programs that it needs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiban.bench import __main__ as bench
from apiban.bench.machine import BenchError, Machine
from apiban.bench.report import Part


def failing(error: Exception) -> object:
    """Return a part that fails."""

    def part(_folder: Path) -> list[Part]:
        raise error

    return part


def test_what_was_measured_is_reported_though_a_part_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The failures are lines of the report and of stderr, without a traceback; the status is 1."""

    def parts(_: object) -> Iterator[tuple[str, object]]:
        yield "drops", failing(BenchError("no list"))
        yield "good", failing(subprocess.TimeoutExpired("kamcmd", 10))
        yield "goodput", failing(FileNotFoundError(2, "No such file", "taskset"))
        yield "sync", lambda _: [Part("Loading", ("a", "b"), (("c", "1"),))]

    monkeypatch.setattr(bench, "_parts", parts)
    monkeypatch.setenv("APIBAN_BENCH_NAMESPACE", "1")
    monkeypatch.setattr(bench.signal, "signal", lambda *_: None)
    file = tmp_path / "run.json"
    assert bench.main(["--json", str(file)]) == 1
    told = capsys.readouterr()
    assert "**Not measured:** drops: no list\n" in told.out
    assert "| c | 1 |" in told.out
    assert [line.partition(":")[2][:9] for line in told.err.splitlines()] == [
        " drops: n", " good: Co", " goodput:",
    ]  # fmt: skip
    assert len(json.loads(file.read_text(encoding="utf-8"))["failures"]) == 3


@pytest.mark.parametrize("missing", ["unshare", "taskset", "ip"])
def test_a_program_that_is_missing_is_named(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything begins."""
    monkeypatch.delenv("APIBAN_BENCH_NAMESPACE", raising=False)
    monkeypatch.setattr(bench.os, "geteuid", lambda: 0)
    monkeypatch.setattr(Machine, "cores", lambda: 2)
    monkeypatch.setattr(bench.shutil, "which", lambda name: None if name == missing else name)
    assert bench.main([]) == 1
    assert capsys.readouterr().err.startswith(f"bench: {missing} is not in PATH")


def test_one_core_is_too_few(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The flood would take the worker's time."""
    monkeypatch.delenv("APIBAN_BENCH_NAMESPACE", raising=False)
    monkeypatch.setattr(bench.os, "geteuid", lambda: 0)
    monkeypatch.setattr(Machine, "cores", lambda: 1)
    assert bench.main([]) == 1
    assert "it needs two cores" in capsys.readouterr().err
