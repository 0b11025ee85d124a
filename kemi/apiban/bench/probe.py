"""Questions that show, from outside, since when a source is dropped, and which workers work.

Whoever answers says its process id (``OK 1234``): so it is known that each worker takes packets.
"""

from __future__ import annotations

import itertools
import re
import select
import socket
import time
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Final, Self

from apiban.bench.flood import BURST, messages
from apiban.bench.machine import BenchError
from apiban.bench.nodes import Node

__all__ = ["Asker", "Prober", "reach_all"]

_NUMBER: Final = re.compile(rb"CSeq: (\d+) ")
_WORKER: Final = re.compile(rb"SIP/2\.0 200 OK (\d+)\r\n")
_PATIENCE: Final = 10.0


class Asker:
    """A source that asks: a context manager. Each question has a number, from 0."""

    def __init__(self, source: str, target: str) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((source, 0))
        self.socket.connect((host, int(port)))
        burst = next(messages("options", source, self.socket.getsockname()[1], host))
        message = burst[: len(burst) // BURST]
        self._before, _, self._after = message.partition(b"CSeq: 1 ")
        self.sent: list[float] = []  # when, by ``time.perf_counter``
        self.answered = -1  # the latest question that was
        self.workers: set[int] = set()  # who answered

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    @property
    def silent_from(self) -> float:
        """When the first question was sent after which none was answered; now, if there is none."""
        following = self.answered + 1
        return self.sent[following] if following < len(self.sent) else time.perf_counter()

    def ask(self) -> None:
        """Send the next question."""
        self.sent.append(time.perf_counter())
        self.socket.send(self._before + b"CSeq: %d " % (len(self.sent) - 1) + self._after)

    def hear(self) -> None:
        """Take an answer that is there."""
        answer = self.socket.recv(65536)
        number, worker = _NUMBER.search(answer), _WORKER.match(answer)
        if number is None or worker is None:
            raise BenchError("an answer that names no question, or no worker")
        self.answered = max(self.answered, int(number[1]))
        self.workers.add(int(worker[1]))


class Prober:
    """Has the source that is watched and one that nobody lists ask at one rate each."""

    def __init__(self, watched: Asker, control: Asker, *, rate: float) -> None:
        self._askers = (watched, control)
        self._every = 1 / rate

    def ask_until(self, done: Callable[[], bool], what: str) -> None:
        """Ask until it is done.

        Raises:
            BenchError: it takes too long.

        """
        give_up = time.perf_counter() + _PATIENCE
        due = time.perf_counter()
        while not done():
            now = time.perf_counter()
            if now > give_up:
                raise BenchError(f"within {_PATIENCE:g} s there was not: {what}")
            if now >= due:
                for asker in self._askers:
                    asker.ask()
                due = max(due + self._every, now)
            self._listen(max(0.0, due - time.perf_counter()))

    def _listen(self, seconds: float) -> None:
        ready = select.select([asker.socket for asker in self._askers], [], [], seconds)[0]
        for asker in self._askers:
            if asker.socket in ready:
                asker.hear()


def reach_all(node: Node, workers: Collection[int]) -> None:
    """Ask until each worker answered.

    Each question comes from another source: ours then asks its list, and takes a new one into use.

    Raises:
        BenchError: some worker never does.

    """
    give_up = time.perf_counter() + _PATIENCE
    reached: set[int] = set()
    for number in itertools.count():
        if reached.issuperset(workers):
            return
        if time.perf_counter() > give_up:
            raise BenchError(f"within {_PATIENCE:g} s not every worker answered")
        with Asker(f"127.40.{number // 250 % 250}.{number % 250 + 1}", node.target) as asker:
            asker.ask()
            if select.select([asker.socket], [], [], 1.0)[0]:
                asker.hear()
            reached |= asker.workers
