"""Probing from outside, and the quantiles of what it finds."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from apiban.bench.enforce import Enforcement, _Silence
from apiban.bench.machine import BenchError
from apiban.bench.probe import Asker, Prober


@contextmanager
def _answering(answers: Callable[[str, int], int]) -> Iterator[str]:
    """Answer as the worker that ``answers(source, number)`` names; 0 is silence."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while (packet := server.recvfrom(4096))[0] != b"end":
                found = re.search(rb"CSeq: (\d+) ", packet[0])
                assert found is not None
                if worker := answers(packet[1][0], int(found[1])):
                    server.sendto(b"SIP/2.0 200 OK %d\r\n%s" % (worker, packet[0]), packet[1])

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.sendto(b"end", server.getsockname())
        thread.join(10)


def test_silence_begins_with_the_first_question_that_nobody_answers() -> None:
    """The source is answered up to question 19, the control always, by two workers in turn."""

    def answers(source: str, number: int) -> int:
        return 0 if source == "127.0.0.2" and number >= 20 else 1000 + number % 2

    with (
        _answering(answers) as target,
        Asker("127.0.0.2", target) as watched,
        Asker("127.0.0.3", target) as control,
    ):
        silence = _Silence(watched, control, [1000, 1001])
        Prober(watched, control, rate=500.0).ask_until(silence.lasts, "silence")
        assert watched.silent_from == watched.sent[20]
        assert watched.workers == {1000, 1001}


def test_silence_does_not_count_while_a_worker_takes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control is answered by one worker alone: nobody knows what the other would do."""
    monkeypatch.setattr("apiban.bench.probe._PATIENCE", 0.8)
    with (
        _answering(lambda source, _: 0 if source == "127.0.0.2" else 1000) as target,
        Asker("127.0.0.2", target) as watched,
        Asker("127.0.0.3", target) as control,
    ):
        silence = _Silence(watched, control, [1000, 1001])
        with pytest.raises(BenchError):
            Prober(watched, control, rate=500.0).ask_until(silence.lasts, "silence")


def test_quantiles_are_times_that_were_met() -> None:
    """Of a hundred times the 99th percentile is the second longest, the median the fiftieth."""
    found = Enforcement("ours", "tlsf", 1000, 8, tuple(number / 100 for number in range(100)))
    assert (found.quantile(0.5), found.quantile(0.99)) == (0.49, 0.98)
    assert found.row()["max_seconds"] == 0.99
