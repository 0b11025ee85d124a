"""A node that does not do what is measured of it is not measured."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from apiban.bench import check
from apiban.bench.check import check_answers
from apiban.bench.drops import worker_cost
from apiban.bench.lists import LISTED
from apiban.bench.machine import BenchError


@contextmanager
def node(answer: Callable[[bool], bytes]) -> Iterator[str]:
    """Answer each source as told by whether it is listed; nothing is silence."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while (packet := server.recvfrom(4096))[0] != b"end":
                if text := answer(packet[1][0] in LISTED):
                    server.sendto(b"SIP/2.0 " + text + b"\r\n\r\n", packet[1])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.sendto(b"end", server.getsockname())
            thread.join(10)


def drops_listed(listed: bool) -> bytes:  # noqa: FBT001 - the only thing that there is to tell
    """Answer as a node with its list."""
    return b"" if listed else b"200 OK"


@pytest.mark.parametrize(
    ("answer", "expected", "lists"),
    [
        (drops_listed, "200", True),
        (lambda _: b"200 OK", "200", False),
        (lambda _: b"405 Method Not Allowed", "405", False),
        (lambda _: b"", "", True),
    ],
)
def test_a_node_that_does_as_it_should(
    answer: Callable[[bool], bytes], expected: str, *, lists: bool
) -> None:
    """Nothing is said of it."""
    with node(answer) as target:
        check_answers("a node", target, expected, lists=lists)


@pytest.mark.parametrize(
    ("answer", "expected", "trouble"),
    [
        (lambda _: b"200 OK", "200", "a node: a listed source got 200, not silence"),
        (lambda _: b"", "200", "a node: an unlisted source got no answer, not 200"),
        (drops_listed, "", "a node: an unlisted source got 200, not silence"),
        (drops_listed, "405", "a node: an unlisted source got 200, not 405"),
    ],
)
def test_a_node_that_does_not(
    answer: Callable[[bool], bytes],
    expected: str,
    trouble: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No list, a drop of everybody, an answer in place of a drop: each is named."""
    monkeypatch.setattr(check, "_PATIENCE", 0.3)
    with node(answer) as target, pytest.raises(BenchError, match=trouble):
        check_answers("a node", target, expected, lists=True)


class Idle:
    """A node that takes no packet."""

    port = 1
    target = "127.0.0.1:1"

    class setup:  # noqa: N801 - as a node has it
        """Its name."""

        name = "idle"

    def workers(self) -> list[int]:
        """Give none."""
        return []


def test_a_worker_that_took_nothing_has_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather a line about it than a division by zero."""
    lost = iter((0, 10))
    monkeypatch.setattr("apiban.bench.drops.drain", lambda _: next(lost))
    monkeypatch.setattr(
        "apiban.bench.drops.send_flood", lambda *_: type("Sent", (), {"packets": 10})
    )
    with pytest.raises(BenchError, match="idle: it took none of 10 packets"):
        worker_cost(Idle(), "127.0.9.1", packets=10)  # type: ignore[arg-type]
