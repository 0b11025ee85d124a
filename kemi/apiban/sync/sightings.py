"""The detector's sightings on their way to a feed of ours: queued here, reported from a thread.

The queue and the reporter are the honeypot's. A request to a slow feed takes its time, and the sync
process has none: so the reporter runs beside it, with a connection of its own to the queue's file.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from apiban.clock import Clock
from apiban.errors import ApibanError, StoreError
from apiban.feed.client import RequestsTransport
from apiban.gate import Board
from apiban.honeypot.queue import Queue
from apiban.honeypot.records import Sighting
from apiban.honeypot.report import Reporter
from apiban.log import Log
from apiban.settings.model import ReportSettings, Settings

__all__ = ["QUEUE", "Sightings"]

QUEUE: Final = "sightings.db"  # in the state folder

_MOST_ROWS: Final = 100_000
_LOOK_EVERY: Final = 0.2
_RETRY: Final = 5.0


class Sightings:
    """A queue, and the thread that reports what is in it."""

    def __init__(self, settings: ReportSettings, state: Path, *, clock: Clock, log: Log) -> None:
        """Begin to report.

        Raises:
            StoreError: the queue cannot be opened.

        """
        self._settings = settings
        self._path = state / QUEUE
        self._clock = clock
        self._log = log
        self._trouble = ""
        self._queue = Queue(self._path)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)
        self._thread.start()

    @classmethod
    def wanted(cls, settings: Settings, *, clock: Clock, log: Log) -> Sightings | None:
        """Begin to report if the settings say so, and it can be done."""
        if not (settings.detect.enabled and settings.report.url):
            return None
        try:
            return cls(settings.report, settings.paths.state, clock=clock, log=log)
        except StoreError as error:
            log("queue-failed", reason=error, effect="nothing is reported")
            return None

    def add(self, sighting: Sighting) -> None:
        """Queue one; what the queue does not take is said."""
        try:
            if not self._queue.add(sighting, max_rows=_MOST_ROWS):
                self._say("queue-full", rows=_MOST_ROWS, effect="not reported")
        except ApibanError as error:
            self._say("queue-failed", reason=error, effect="not reported")

    def close(self) -> None:
        """End; a report under way is sent again by the next one that opens the queue."""
        self._end.set()
        self._queue.close()

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                with Queue(self._path, durable=True) as queue:
                    self._report(queue)
            except StoreError as error:
                self._say("queue-failed", reason=error, effect="no report until it is good")
                self._end.wait(_RETRY)

    def _report(self, queue: Queue) -> None:
        reporter = Reporter(
            settings=self._settings,
            queue=queue,
            # The reporter counts on a honeypot's board, which the node's is not.
            board=Board.unnamed(now=0),
            clock=self._clock,
            log=self._log,
            transport=RequestsTransport(self._settings),
        )
        while not self._end.wait(_LOOK_EVERY):
            reporter.tick()

    def _say(self, event: str, **fields: object) -> None:
        text = f"{event} {fields}"
        if text != self._trouble:
            self._trouble = text
            self._log(event, **fields)
