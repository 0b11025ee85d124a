"""``apiban top``: the node, live."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import Final, Self

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from apiban.alive import is_alive
from apiban.cli.frame import Frame, document, sources
from apiban.cli.host import Host, pass_host
from apiban.cli.kernel import kernel
from apiban.cli.look import Look, look, open_hits, rates
from apiban.cli.show import console, reader_may_leave, stdout, terminal, width, write_json
from apiban.cli.state import State, gather
from apiban.cli.trouble import troubles
from apiban.errors import SettingsError
from apiban.gate.board import Board
from apiban.gate.hits import Hits
from apiban.gate.lag import Lag

__all__ = ["top"]

_INTERVAL: Final = click.FloatRange(0.1, 3600)
_HISTORY: Final = 200
_ONCE_LINES: Final = 40
_ENDS: Final = frozenset({b"q", b"Q", b"\x04"})
# The store and the whole list are looked at this often; the counters at each frame.
_GATHER_EVERY: Final = 5.0
_SMOOTH: Final = 3.0


@click.command()
@click.option("--interval", type=_INTERVAL, default=1.0, show_default=True, help="In seconds.")
@click.option("--once", is_flag=True, help="Print one frame, and end.")
@click.option("--count", type=click.IntRange(1), help="End after so many frames.")
@click.option("--json", "as_json", is_flag=True, help="One document for machines, and end.")
@pass_host
def top(host: Host, /, *, interval: float, once: bool, count: int | None, as_json: bool) -> None:
    """Show drops and the sources of them, live; q or Ctrl-C ends it.

    The sources are those that a list bans, by what came from them in the last interval. A "~" marks
    a count that is in part an estimate. Without a terminal, or on a dumb one, one frame is printed.
    """
    view = _View(host)
    view.step()
    if as_json:
        time.sleep(interval)
        state = view.step()
        write_json(document(state, sources(state), troubles(state)))
    elif once or not terminal() or os.environ.get("TERM") == "dumb":
        for _ in range(count or 1):
            time.sleep(interval)
            view.step()
            target = console()
            with reader_may_leave():
                for line in view.draw(width(), _ONCE_LINES, plain=target.options.ascii_only):
                    line.rstrip()
                    target.print(line, soft_wrap=True)
    else:
        _live(view, interval, count)


class _View:
    """What the frames show, from one to the next."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._state: State | None = None
        self._gather_from = 0.0
        self._last: Look | None = None
        self._hits: Hits | None = None
        self._lag = Lag()
        self._looks: deque[Look] = deque()
        self._history: deque[float] = deque(maxlen=_HISTORY)

    def step(self) -> State:
        """Look again, and compare with the look before."""
        host, now = self._host, self._host.clock.uptime()
        board = self._board()
        seen = None if board is None else look(board, uptime=now, hits=self._hits)
        first = seen if self._last is None or seen is None else self._last
        is_new = seen is not None and first is not None and seen.generation != first.generation
        if self._state is None or is_new or now >= self._gather_from:
            self._gather_from = now + _GATHER_EVERY
            _read_settings(host)
            state = gather(host, first)
        else:
            state = replace(
                self._state,
                now=host.clock.now(),
                report=host.report(),
                silence=host.silence(),
                first=first,
            )
        state = replace(state, last=seen, rates=None, behind=None, kernel=kernel(host))
        if seen is not None and first is not seen:
            state = state.then(seen, self._lag.behind(seen.generation, seen.slots))
            state = self._smoothed(state, seen)
        self._remember(state)
        if seen is not None:
            self._looks.append(seen)
        self._last, self._state = seen, state
        return state

    def _remember(self, state: State) -> None:
        """Keep the rate of all drops, for the line that is drawn of it."""
        runs = state.kernel is not None and state.kernel.runs
        below = state.kernel.report.dropped_per_second if state.kernel and runs else 0.0
        if state.kernel is not None and state.kernel.report.mode != "enforce":
            below = 0.0  # what is only counted goes on to Kamailio
        if state.rates is not None or runs:
            self._history.append(below + (0.0 if state.rates is None else state.rates.dropped))

    def _smoothed(self, state: State, seen: Look) -> State:
        """Take the sources' rates over some seconds: Kamailio adds their drops up once a second."""
        while len(self._looks) > 1 and self._looks[1].uptime <= seen.uptime - _SMOOTH:
            self._looks.popleft()
        over = rates(self._looks[0], seen).sources
        return replace(state, rates=replace(state.rates, sources=over) if state.rates else None)

    def _board(self) -> Board | None:
        """Give the board, and that of a Kamailio that started meanwhile."""
        host = self._host
        old = host.board
        if old is None or not any(is_alive(slot.pid) for slot in old.slots()):
            del host.board
            self._gather_from = 0.0
        if host.board is not old:
            self._last, self._hits, self._lag = None, None, Lag()
            self._looks.clear()
        if self._hits is None:
            self._hits = open_hits(host)
        return host.board

    def draw(self, wide: int, high: int, *, plain: bool) -> list[Text]:
        """Draw the frame."""
        state = self._state
        assert state is not None  # noqa: S101 - step() was called
        frame = Frame(
            state,
            found=sources(state),
            troubles=troubles(state),
            history=self._history,
            width=wide,
            plain=plain,
        )
        return frame.lines(high)


def _read_settings(host: Host) -> None:
    """Read them anew; while they are bad those of before stay in force here as in Kamailio."""
    with suppress(SettingsError):
        host.settings = host.load()
        host.mistake = ""


def _live(view: _View, interval: float, count: int | None) -> None:
    """Draw until q, Ctrl-C, a signal, or so many frames; the terminal is then as it was."""
    target = Console(file=stdout(), highlight=False, markup=False, emoji=False)
    shown = 0
    with (
        suppress(KeyboardInterrupt),
        _signals(),
        _Keys() as keys,
        Live(console=target, screen=True, auto_refresh=False) as live,
    ):
        while True:
            size = target.size
            lines = view.draw(size.width, size.height, plain=target.options.ascii_only)
            live.update(Text("\n").join(lines), refresh=True)
            shown += 1
            if shown == count or keys.end_within(interval):
                return
            view.step()


@contextmanager
def _signals() -> Iterator[None]:
    """Let what ends a process unwind it, so that the terminal is put right."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    old = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Keys:
    """The keyboard, key by key, where the standard input is one."""

    def __enter__(self) -> Self:
        self._handle = sys.stdin.fileno() if sys.stdin.isatty() else None
        if self._handle is not None:
            self._before = termios.tcgetattr(self._handle)
            tty.setcbreak(self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            termios.tcsetattr(self._handle, termios.TCSADRAIN, self._before)

    def end_within(self, seconds: float) -> bool:
        """Wait; tell whether q was pressed meanwhile."""
        if self._handle is None:
            time.sleep(seconds)
            return False
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self._handle], [], [], left)[0]:
                pressed = os.read(self._handle, 64)
                if not pressed or pressed in _ENDS:
                    return True
        return False
