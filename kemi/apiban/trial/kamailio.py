"""Starts and ends a real Kamailio with the module: for ``bin/run``, and for the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Self

from apiban.errors import ApibanError
from apiban.gate import Board

__all__ = ["CONFIGURATION", "SCRIPT", "Kamailio", "KamailioError", "worker_cpu_seconds"]

_ROOT: Final = Path(__file__).resolve().parents[3]
CONFIGURATION: Final = _ROOT / "kamailio" / "kamailio.cfg"
SCRIPT: Final = _ROOT / "kemi" / "apiban_kemi.py"

_START_TIMEOUT: Final = 30.0
_STOP_TIMEOUT: Final = 10.0


class KamailioError(ApibanError):
    """Kamailio did not start, or did not answer."""


class Kamailio:
    """One Kamailio in the foreground of a process group of ours; it logs into a file."""

    def __init__(  # noqa: PLR0913 - each is one thing a caller varies
        self,
        folder: Path,
        *,
        listen: Iterable[str],
        environ: Mapping[str, str],
        configuration: Path = CONFIGURATION,
        script: Path = SCRIPT,
        workers: int = 4,
        defines: Iterable[str] = (),
        options: Iterable[str] = ("-x", "tlsf"),
        prefix: Iterable[str] = (),
    ) -> None:
        self.folder = folder
        self.log_file = folder / "kamailio.log"
        self._sockets: Path | None = None  # the name of a unix socket may have 104 characters
        self._environ = {**environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self._command = [
            *prefix,
            *("kamailio", "-f", str(configuration), "-DD", "-E", "-m", "64"),
            *("-P", str(folder / "pid")),
            *options,
            *(word for one in listen for word in ("-l", one)),
            *("-A", f'APIBAN_SCRIPT="{script}"'),
            *("-A", f"APIBAN_WORKERS={workers}", "-A", "WITH_STDERR"),
            *(word for one in defines for word in ("-A", one)),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it answers on its control socket.

        Raises:
            KamailioError: with the last lines of its log.

        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sockets = Path(tempfile.mkdtemp(prefix="apiban-", dir="/tmp"))
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "-Y", str(self._sockets)],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        give_up = time.monotonic() + _START_TIMEOUT
        try:
            while self._process.poll() is None and time.monotonic() < give_up:
                if (self._sockets / "kamailio_ctl").exists() and self._answers():
                    return self
                time.sleep(0.05)
        except BaseException:  # an interrupt too: nothing that was started is left
            self.stop()
            raise
        self.stop()
        raise KamailioError("Kamailio did not start: " + " | ".join(self.log_lines()[-5:]))

    def stop(self) -> int:
        """End it and give its exit status."""
        if self._process is None:
            return 0
        # Its children share its process group, and nobody else does. A child that is just being
        # forked misses a signal, and the main process would wait for it: so it is sent again.
        for number, seconds in ((signal.SIGTERM, 1.0), (signal.SIGTERM, _STOP_TIMEOUT), (9, None)):
            if self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(seconds)
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
        return self._process.returncode

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the main process is there."""
        return self._process is not None and self._process.poll() is None

    def log_lines(self) -> list[str]:
        """Give the log so far, without debug lines."""
        text = self.log_file.read_text(encoding="utf-8", errors="replace")
        return [line for line in text.splitlines() if line]

    def rpc(self, *command: str) -> str:
        """Send a command to its control socket and give what it answered.

        Raises:
            KamailioError: it refused, or did not answer.

        """
        done = subprocess.run(
            ["kamcmd", "-s", f"unix:{self._sockets}/kamailio_ctl", *command],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        if done.returncode != 0 or "error:" in done.stdout[:20]:
            raise KamailioError(f"{' '.join(command)}: {done.stdout}{done.stderr}".strip())
        return done.stdout

    def _answers(self) -> bool:
        with contextlib.suppress(KamailioError, subprocess.TimeoutExpired):
            return bool(self.rpc("core.uptime"))
        return False


def worker_cpu_seconds(board: Board) -> float:
    """Give the CPU time of all SIP workers so far, by the scheduler's own accounting."""
    total = 0
    for slot in board.slots():
        if slot.rank > 0:
            with contextlib.suppress(OSError, IndexError):
                text = Path(f"/proc/{slot.pid}/schedstat").read_text(encoding="ascii")
                total += int(text.split()[0])
    return total / 1e9
