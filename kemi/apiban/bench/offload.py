"""The firewall client beside a node: those that flood go into the kernel, and out again at the end.

The kernel is that of the network namespace that this runs in, which must be a private one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from apiban.bench.machine import BenchError
from apiban.firewall.report import FirewallReport, read_report, report_path

__all__ = ["OFFLOAD", "Offload"]

# What the node's settings are to have: its end takes out what it put in.
OFFLOAD: Final = '[firewall]\nsources = "flooding"\non_exit = "remove"\n'

_CORE: Final = "0"
_PATIENCE: Final = 20.0


class Offload:
    """A running client: a context manager. ``environ`` names the node's settings."""

    def __init__(self, environ: dict[str, str], runtime: Path, log: Path) -> None:
        self._environ = environ
        self._report = report_path(runtime)
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", _CORE, sys.executable, "-m", "apiban.cli", "firewall", "run"],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # ^C is for us; we end it
            )
        if not self._wait(lambda report: report.checked_at is not None):
            self.__exit__()
            raise BenchError(f"the firewall client does nothing: {self._said()}")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise BenchError("the firewall client does not end") from None

    def flooding(self, sources: int) -> int:
        """Wait until so many sources are in the kernel; give how many are, in the end."""
        self._wait(lambda report: report.banned_ipv4 >= sources)
        report = read_report(self._report)
        return 0 if report is None else report.banned_ipv4

    def _wait(self, is_so: Callable[[FirewallReport], bool]) -> bool:
        give_up = time.monotonic() + _PATIENCE
        while time.monotonic() < give_up and self._process.poll() is None:
            report = read_report(self._report)
            if report is not None and is_so(report):
                return True
            time.sleep(0.05)
        return False

    def _said(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1][:200] if lines else "it said nothing"
