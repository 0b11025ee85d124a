"""One question to the feed at a time, asked without making the tick wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from apiban.errors import FeedError, FeedOutage
from apiban.feed.answer import EndOfList, Page

__all__ = ["Answer", "Exchange", "ThreadExchange"]

Answer = Page | EndOfList | FeedError
Question = Callable[[], Page | EndOfList]


class Exchange(Protocol):
    """Runs a question; its answer is there at a later tick, or at once."""

    def ask(self, question: Question) -> None:
        """Begin; there is no other question under way."""
        ...

    def answer(self) -> Answer | None:
        """Give the answer, once; None while it is not there."""
        ...


def ask_now(question: Question) -> Answer:
    """Ask and wait; every failure comes back as a value."""
    try:
        return question()
    except FeedError as error:
        return error
    except Exception as error:  # noqa: BLE001 - its text may hold the URL, and so the key
        return FeedOutage(f"the request failed ({type(error).__name__})")


class ThreadExchange:
    """Asks in a thread: settings and expiries are served while a slow feed makes up its mind.

    The thread touches neither the store nor Kamailio.
    """

    def __init__(self) -> None:
        self._answer: Answer | None = None
        self._thread: threading.Thread | None = None

    def ask(self, question: Question) -> None:
        """Begin in a new thread."""

        def run() -> None:
            self._answer = ask_now(question)

        self._thread = threading.Thread(target=run, name="feed", daemon=True)
        self._thread.start()

    def answer(self) -> Answer | None:
        """Give the answer when the thread has it."""
        if self._thread is None or self._thread.is_alive():
            return None
        answer, self._answer, self._thread = self._answer, None, None
        return answer or FeedOutage("the request ended without an answer")
