"""One honeypot: everything is put together here, before Kamailio's workers are forked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from apiban import __version__
from apiban.clock import Clock, SystemClock
from apiban.errors import BoardError, SettingsError, StoreError
from apiban.gate import Board
from apiban.honeypot.answers import Answers
from apiban.honeypot.counts import total
from apiban.honeypot.metrics import HoneypotMetrics
from apiban.honeypot.nonce import Nonces, load_secret
from apiban.honeypot.process import QUEUE
from apiban.honeypot.queue import Queue
from apiban.honeypot.settings import (
    HoneypotSettings,
    honeypot_settings_path,
    load_honeypot_settings,
)
from apiban.honeypot.trap import Trap
from apiban.kemi.folders import Folders
from apiban.kemi.keeper import ChildKeeper, child_command, child_environ
from apiban.log import EVENTS, Level, line

if TYPE_CHECKING:
    from kamailio_kemi_stubs import Ksr

__all__ = ["HoneypotNode"]

# What Kamailio's own parts without a module may log once it runs: nothing below "critical".
_QUIET: Final = '{"jsonrpc": "2.0", "id": 1, "method": "dbg.set_mod_level", "params": ["core", -2]}'
# The port that Prometheus asks at: only kamailio/apiban-metrics.cfg defines it.
_METRICS_PORT: Final = "$def(APIBAN_METRICS_PORT)"
_SECRET: Final = "nonce.secret"  # noqa: S105 - a file's name


class HoneypotNode:
    """The trap, the keeper of the reporter, and the metrics.

    ``previous`` is the node that ``app_python.reload`` replaces in this process: its shared memory
    is taken over.

    Raises:
        SettingsError: the settings, or the folders that they name, cannot be used.

    """

    def __init__(
        self,
        ksr: Ksr,
        *,
        environ: Mapping[str, str] = os.environ,
        previous: HoneypotNode | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._ksr = ksr
        self._clock = clock or SystemClock()
        settings = load_honeypot_settings(honeypot_settings_path(environ), environ)
        if previous is not None:  # the queue that the other processes have open is the one
            was = previous.settings
            settings = replace(settings, state=was.state, runtime=was.runtime)
        self.settings: HoneypotSettings = settings
        self._folders = Folders(settings.state)
        if previous is None:
            for folder in (settings.state, settings.runtime):
                self._folders.make(folder)
        self.board = self._take_board(previous)
        self.answers: Answers = Answers(
            settings.answers,
            self._clock.uptime,
            None if previous is None else os.dup(previous.answers.handle),
        )
        self.trap = Trap(
            ksr,
            settings=settings,
            board=self.board,
            answers=self.answers,
            nonces=Nonces(self._secret(), lifetime=settings.nonce_lifetime, now=self._clock.now),
            queue=settings.state / QUEUE,
            clock=self._clock,
            log=self.log,
            metrics_port=self._metrics_port(),
        )
        if previous is None:
            self._make_queue()
        self.keeper = ChildKeeper(
            command=child_command("apiban.honeypot"),
            environ=child_environ({**environ, "APIBAN_HONEYPOT_PATHS_STATE": str(settings.state)}),
            board=self.board,
            clock=self._clock,
            log=self.log,
            print_line=self._print,
            ended="report-ended",
            output="report-output",
        )
        self.metrics = HoneypotMetrics(
            ksr,
            board=self.board,
            clock=self._clock,
            queue=settings.state / QUEUE,
            reporter_runs=lambda: self.keeper.pid is not None,
            previous=getattr(previous, "metrics", None),  # code of an earlier version has none
        )
        if previous is not None:
            previous.keeper.stop()  # only the rtimer process has a child to stop
            previous.trap.close()
        self._quiet = False
        self._counts = total(self.board)
        self._summary_from = self._clock.uptime() + settings.log_interval
        self.log(
            "honeypot-start",
            version=__version__,
            again=previous is not None,
            reports_to=settings.report.url or "nobody",
        )

    def child_init(self, rank: int) -> None:
        """Begin in a process that Kamailio forked."""
        self.trap.sign_in(rank, os.getpid())

    def tick(self) -> None:
        """Do the rtimer's work."""
        if not self._quiet:
            # What it has to say of its start is out. From now on its lines would tell of what
            # comes from outside, a few for each datagram or connection that somebody sends.
            self._quiet = True
            self._ksr.jsonrpcs.exec(_QUIET)
        self.keeper.tick()
        self.metrics.tick()
        now = self._clock.uptime()
        if now >= self._summary_from:
            self._summary_from = now + self.settings.log_interval
            self._summarise()

    def log(self, event: str, **fields: object) -> None:
        """Write a line to Kamailio's log."""
        self._print(EVENTS[event], line(event, fields))

    def _print(self, level: Level, text: str) -> None:
        # By the module: KSR.err() and its like are of the core, which is to be quiet.
        getattr(self._ksr.xlog, f"x{level}")(text.replace("$", "$$") + "\n")

    def _summarise(self) -> None:
        counts = total(self.board)
        news, self._counts = counts - self._counts, counts
        if news:
            self.log(
                "honeypot-summary",
                seconds=self.settings.log_interval,
                sightings=news.sightings,
                unproven=news.unproven,
                not_kept=news.not_kept,
                answers=news.answers,
                silent=news.silent,
                unwritten=news.unwritten,
                faults=news.faults,
            )

    # What is made before the fork --------------------------------------------------------------

    def _metrics_port(self) -> int:
        """Give the port of the metrics; 0 when they are not served."""
        if not hasattr(self._ksr, "xhttp_prom"):
            return 0
        port = str(self._ksr.pv.get(_METRICS_PORT))
        return int(port) if port.isascii() and port.isdecimal() else 0

    def _take_board(self, previous: HoneypotNode | None) -> Board:
        if previous is not None:
            return Board(previous.board.handle)
        path, now = self.settings.runtime / "counters", self._clock.now()
        try:
            board = Board.create(path, now=now)
            self._folders.hand_over(path)
        except BoardError as error:
            self.log("fault", what="counters", reason=error, effect="not visible from outside")
            board = Board.unnamed(now=now)
        return board

    def _secret(self) -> bytes:
        path = self.settings.state / _SECRET
        try:
            secret = load_secret(path)
        except OSError as error:
            raise SettingsError((f"paths.state: {path}: {error.strerror}",)) from None
        self._folders.hand_over(path)
        return secret

    def _make_queue(self) -> None:
        """Make the queue's file now, so that it is the workers' user's."""
        path = self.settings.state / QUEUE
        try:
            Queue(path).close()
        except StoreError as error:
            # It starts all the same: who mends the disk need not restart it.
            self.log("queue-failed", reason=error, effect="proven sources get no answer")
        self._folders.hand_over(path)
