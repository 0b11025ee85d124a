"""Commands of ours that run until they are ended, each a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

__all__ = ["Service"]


class Service:
    """A running ``apiban`` verb: a context manager. Its lines go on from one start to the next.

    ``before`` are words that go in front of the command, such as those of setpriv.
    """

    def __init__(
        self, log: Path, *words: str, environ: Mapping[str, str], before: tuple[str, ...] = ()
    ) -> None:
        self._log = log
        self._command = [*before, sys.executable, "-m", "apiban.cli", *words]
        self._environ = environ
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, in the network of the calling thread."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def stop(self) -> float:
        """Ask it to end; give the seconds that it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(15) == 0, self.lines()
        return time.monotonic() - began

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process is not None and self.process.poll() is None

    def lines(self) -> list[str]:
        """Give all that it said."""
        return self._log.read_text(encoding="utf-8").splitlines()

    def events(self, name: str) -> list[str]:
        """Give the log lines of an event."""
        return [line for line in self.lines() if f"event={name} " in line + " "]
