"""The keeper of the sync process, or of another one, run by rtimer inside Kamailio.

Kamailio ends as a whole when one of its processes dies, and its Python cannot run threads. So the
sync is a process of its own, a child of the rtimer process: this starts it, gives it its ticks,
hands on what the workers have for it, prints its lines, and starts it again when it ended, whatever
ended it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from apiban.clock import Clock
from apiban.gate import Board
from apiban.gate.board import Counts
from apiban.log import EVENTS, PREFIX, Level, Log

__all__ = ["ChildKeeper", "Keeper", "child_command", "child_environ"]

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 60.0
_LONGEST_PAUSE_KILLED: Final = 2.0
_GOOD_AFTER: Final = 10.0
_LONGEST_LINE: Final = 1000
_LINES_A_TICK: Final = 20
_LINES_KEPT: Final = 1000
_NOTICES_KEPT: Final = 1000
# A child that takes no tick for so long hangs: no list takes that long to compile.
_SILENT: Final = 30.0
# This process stood still itself, or the machine slept: the child may not have had a tick either.
_STOOD_STILL: Final = 5.0

Print = Callable[[Level, str], None]


def child_command(module: str) -> list[str]:
    """Name the interpreter that is embedded here; ``sys.executable`` may be another one."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = Path(sys.base_prefix) / "bin" / name
    return [str(python) if python.exists() else sys.executable, "-m", module]


def child_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the child our module path, so that it runs the same code with the same libraries."""
    ours = [folder for folder in sys.path if folder and Path(folder).is_dir()]
    return {**environ, "PYTHONPATH": os.pathsep.join(ours), "PYTHONSAFEPATH": "1"}


class ChildKeeper:
    """Keeps one process that has the board; ``tick()`` never waits for it.

    ``ended`` and ``output`` are the events that say that it ended, and what it printed that is no
    line of ours. ``notices`` gives lines for it that came since the last tick.
    ``patience`` is for how many seconds the child may be silent, which is not to say on the board
    that it took a tick: then it is killed. None is for a child that says nothing there.
    """

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        *,
        command: Sequence[str],
        environ: Mapping[str, str],
        board: Board,
        clock: Clock,
        log: Log,
        print_line: Print,
        ended: str,
        output: str,
        notices: Callable[[], list[bytes]] = list,
        patience: float | None = None,
    ) -> None:
        self._command = [*command, "--board", str(board.handle)]
        self._environ = dict(environ)
        self._board = board
        self._clock = clock
        self._log = log
        self._print = print_line
        self._ended_event = ended
        self._output_event = output
        self._notices = notices
        self._patience = patience
        self._unsent: deque[bytes] = deque(maxlen=_NOTICES_KEPT)
        self._child: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._lines: deque[bytes] = deque(maxlen=_LINES_KEPT)
        self._started = 0.0
        self._beaten: float | None = None  # what the board said of its last tick
        self._silent_from = 0.0
        self._ticked = 0.0
        self._was_silent = False  # and was killed for that
        self._start_from = 0.0
        self._pause = _FIRST_PAUSE

    def tick(self) -> None:
        """Start the process if need be, tick it, and print what it said."""
        self._unsent.extend(self._notices())
        child = self._child
        if child is None:
            if self._clock.uptime() >= self._start_from:
                self._start()
            child = self._child
        if child is not None:
            self._send(child)
            self._read(child)
            if child.poll() is not None:
                self._ended(child)
            else:
                self._listen(child)
        self._print_some()

    @property
    def pid(self) -> int | None:
        """The process's id, while it runs."""
        return self._child.pid if self._child else None

    def stop(self) -> None:
        """Let the process end: it does when its input ends, but for one that hangs."""
        child, self._child = self._child, None
        if child is not None:
            silent = self._clock.uptime() - self._silent_from
            if self._patience is not None and silent >= self._patience / 2:
                child.kill()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()

    def _start(self) -> None:
        self._started = self._silent_from = self._ticked = self._clock.uptime()
        self._was_silent = False
        try:
            self._child = subprocess.Popen(
                self._command,
                env=self._environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(self._board.handle,),
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            self._log(self._ended_event, reason=error.strerror, next_try_in=self._longer_pause())
            return
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)

    def _send(self, child: subprocess.Popen[bytes]) -> None:
        if child.stdin is not None:
            # A full pipe means that it is busy, a broken one that it ended: what is unsent waits.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                while self._unsent:  # each is short enough to be written whole or not at all
                    os.write(child.stdin.fileno(), self._unsent[0] + b"\n")
                    self._unsent.popleft()
                os.write(child.stdin.fileno(), b".")

    def _read(self, child: subprocess.Popen[bytes]) -> None:
        if child.stdout is None:
            return
        try:
            data = os.read(child.stdout.fileno(), 65536)
        except BlockingIOError:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_LONGEST_LINE:]
        self._lines.extend(lines)

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        """Kill a child that hangs: whatever holds it, the next one may do better."""
        now, beaten = self._clock.uptime(), self._board.beaten
        if beaten != self._beaten or now - self._ticked > _STOOD_STILL:
            self._beaten, self._silent_from = beaten, now
        self._ticked = now
        if self._patience is None or self._was_silent:
            return
        if now - self._silent_from >= self._patience:
            self._was_silent = True
            child.kill()

    def _print_some(self) -> None:
        """Pass on a few lines a tick; more than the log can take are dropped at the old end."""
        for _ in range(min(len(self._lines), _LINES_A_TICK)):
            self._pass_on(self._lines.popleft().decode("utf-8", "replace"))

    def _pass_on(self, text: str) -> None:
        """Print a line of ours; anything else that comes out of the child is escaped and cut."""
        level, _, rest = text.partition(" ")
        for known in set(EVENTS.values()):
            if level == known and rest.startswith(PREFIX):
                self._print(known, rest[:_LONGEST_LINE])
                return
        self._log(self._output_event, text=text)

    def _ended(self, child: subprocess.Popen[bytes]) -> None:
        self._read(child)
        self._child, self._rest = None, b""
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._clock.uptime() - self._started > _GOOD_AFTER:
            self._pause = _FIRST_PAUSE
        if child.returncode < 0:  # a signal ended it, so nothing is wrong with it
            self._pause = min(self._pause, _LONGEST_PAUSE_KILLED)
        why = {"reason": "silent"} if self._was_silent else {}
        pause = self._longer_pause()
        self._log(self._ended_event, status=child.returncode, next_try_in=pause, **why)

    def _longer_pause(self) -> float:
        pause = self._pause
        self._start_from = self._clock.uptime() + pause
        self._pause = min(pause * 2, _LONGEST_PAUSE)
        return pause


class Keeper(ChildKeeper):
    """Keeps the sync process, and says now and then what the workers dropped."""

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        *,
        command: Sequence[str],
        environ: Mapping[str, str],
        board: Board,
        clock: Clock,
        log: Log,
        print_line: Print,
        summary_every: float,
        notices: Callable[[], list[bytes]] = list,
    ) -> None:
        super().__init__(
            command=command,
            environ=environ,
            board=board,
            clock=clock,
            log=log,
            print_line=print_line,
            ended="sync-ended",
            output="sync-output",
            notices=notices,
            patience=_SILENT,
        )
        self.summary_every = summary_every
        self._counts = board.total()
        self._summary_from = clock.uptime() + summary_every

    def tick(self) -> None:
        """Start the sync process if need be, tick it, print what it said, and sum up."""
        super().tick()
        self._summarise()

    def _summarise(self) -> None:
        now = self._clock.uptime()
        if now < self._summary_from:
            return
        self._summary_from = now + self.summary_every
        counts = self._board.total()
        news: Counts = counts - self._counts
        self._counts = counts
        if news.dropped or news.would_drop or news.faults:
            self._log(
                "summary",
                seconds=self.summary_every,
                dropped=news.dropped,
                would_drop=news.would_drop,
                passed=news.passed,
                faults=news.faults,
                dropped_since_start=counts.dropped,
            )
