"""An exchange whose answers come when the test says so."""

from __future__ import annotations

from apiban.sync.exchange import Answer, Question, ask_now


class ManualExchange:
    """Asks at once; with ``slow`` set the answer is held back until it is cleared."""

    def __init__(self) -> None:
        self.slow = False
        self._answer: Answer | None = None

    def ask(self, question: Question) -> None:
        """Ask, and keep the answer."""
        self._answer = ask_now(question)

    def answer(self) -> Answer | None:
        """Give the answer, unless it is held back."""
        if self.slow:
            return None
        answer, self._answer = self._answer, None
        return answer
