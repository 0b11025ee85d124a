"""What the service does again and again beside its requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from apiban.errors import ApibanError
from apiban.log import Log, where

__all__ = ["Work"]

_SAY_EVERY: Final = 60.0


class Work(threading.Thread):
    """Does something again and again; a failure is said, and the next time comes."""

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        every: float,
        log: Log,
        end: threading.Event,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._every = every
        self._log = log
        self._end = end
        self._said = ("", 0.0)

    def run(self) -> None:
        """Work until the end."""
        while not self._end.is_set():
            try:
                self._work()
            except ApibanError as error:
                self._say("feed-store-failed", str(error), reason=error, effect="tried again")
            except Exception as error:  # noqa: BLE001 - the next time may well succeed
                name = type(error).__name__
                self._say("fault", name, what=name, at=where(error), effect="tried again")
            self._end.wait(self._every)

    def _say(self, event: str, text: str, **fields: object) -> None:
        """Say a trouble once a minute while it lasts."""
        now = time.monotonic()
        if self._said[0] != text or now - self._said[1] >= _SAY_EVERY:
            self._said = (text, now)
            self._log(event, **fields)
