"""The reporter's process: from one tick to the next it keeps settings, queue and reporter together.

Nothing that fails here ends the process: a fault is said once while it lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from apiban.clock import Clock
from apiban.errors import SettingsError, StoreError
from apiban.feed.client import RequestsTransport, Transport
from apiban.gate import Board
from apiban.honeypot.queue import Queue
from apiban.honeypot.report import Reporter
from apiban.honeypot.settings import HoneypotSettings, load_honeypot_settings
from apiban.log import Log
from apiban.settings import FileWatch
from apiban.settings.model import ReportSettings

__all__ = ["QUEUE", "ReportProcess"]

QUEUE: Final = "honeypot.db"  # in the state folder

_RETRY: Final = 2.0
_WAIT: Final = 5.0
_TRIM_EVERY: Final = 1.0


class ReportProcess:
    """One reporter. ``tick()`` is all that drives it."""

    def __init__(  # noqa: PLR0913 - the outside world comes in as arguments
        self,
        *,
        path: Path,
        environ: Mapping[str, str],
        board: Board,
        clock: Clock,
        log: Log,
        make_transport: Callable[[ReportSettings], Transport] = RequestsTransport,
    ) -> None:
        self._path = path
        self._environ = environ
        self._board = board
        self._clock = clock
        self._log = log
        self._make_transport = make_transport
        self._watches: list[FileWatch] = []
        self._settings: HoneypotSettings | None = None
        self._queue: Queue | None = None
        self._reporter: Reporter | None = None
        self._retry_from = 0.0
        self._trim_from = 0.0
        self._trouble = ""

    def tick(self) -> None:
        """Do what is due; raise nothing that is foreseen."""
        changed = [watch.changed() for watch in self._watches]
        if self._settings is None or any(changed):
            self._read_settings()
        if self._settings is None or self._clock.uptime() < self._retry_from:
            return
        try:
            reporter = self._open(self._settings)
            if reporter is not None:
                reporter.tick()
                self._trim()
            self._mended("queue-failed")
        except StoreError as error:
            self._retry_from = self._clock.uptime() + _RETRY
            self._say("queue-failed", error, "no report until it is good")
            self.close()

    def close(self) -> None:
        """Let go of the queue."""
        queue, self._queue, self._reporter = self._queue, None, None
        if queue is not None:
            queue.close()

    def _open(self, settings: HoneypotSettings) -> Reporter | None:
        if self._reporter is None and settings.report.url:
            self._queue = Queue(settings.state / QUEUE, durable=True, wait=_WAIT)
            self._reporter = Reporter(
                settings=settings.report,
                queue=self._queue,
                board=self._board,
                clock=self._clock,
                log=self._log,
                transport=self._make_transport(settings.report),
            )
        return self._reporter

    def _trim(self) -> None:
        now = self._clock.uptime()
        if self._queue is not None and now >= self._trim_from:
            self._trim_from = now + _TRIM_EVERY
            self._queue.trim()

    def _read_settings(self) -> None:
        """Read them; bad ones leave the last good ones in force."""
        if not self._watches:
            self._watches = [FileWatch(self._path)]
        try:
            new = load_honeypot_settings(self._path, self._environ)
        except SettingsError as error:
            self._say("settings-refused", error, "the last good settings stay in force")
            return
        self._mended("settings-refused")
        key_file = new.report.key_file
        self._watches[1:] = [FileWatch(key_file)] if key_file else []
        if new == self._settings:
            return
        self._settings = new
        self.close()
        if not new.report.url:
            self._log("report-idle", effect="sightings stay in the queue: no report.url is set")

    # Saying it once ----------------------------------------------------------------------------

    def _say(self, event: str, error: object, effect: str) -> None:
        text = f"{event}: {error}"
        if text != self._trouble:
            self._trouble = text
            self._log(event, reason=error, effect=effect)

    def _mended(self, event: str) -> None:
        if self._trouble.startswith(f"{event}:"):
            self._trouble = ""
            self._log("honeypot", state="good again")
