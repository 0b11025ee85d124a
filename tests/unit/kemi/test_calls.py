"""Grace for the calls of a listed peer, in the guard's own decisions."""

from __future__ import annotations

import pytest
from apiban.gate.board import DROPPED, FRONT
from apiban.kemi.calls import Calls
from apiban.kemi.guard import SPARED
from apiban.kemi.memory import Memory, Pages
from apiban.settings import Mode

from tests.unit.kemi.parts import LISTED, UNLISTED, Worker, packet

CALL = "one@a"


def message(call: str = CALL, method: str = "BYE", tag: str = ";tag=1", name: str = "i") -> bytes:
    """Build a message of a call, with a compact Call-ID unless it is told otherwise."""
    return (
        f"{method} sip:a@b SIP/2.0\r\nVia: x\r\nt: <sip:a@b>{tag}\r\n{name}: {call}\r\n\r\n"
    ).encode()


class _Worker(Worker):
    """A worker that spares calls for 30 seconds."""

    def __init__(self, *listed: str, grace: float = 30.0, mode: Mode = Mode.ENFORCE) -> None:
        super().__init__(*listed, mode=mode)
        memory = Memory(Pages(), uptime=self.clock.uptime)
        self.calls = Calls(self.ksr, memory, grace=grace, uptime=self.clock.uptime)
        self.guard._calls = self.calls

    def passes(self, data: bytes, source: str = LISTED) -> bool:
        return not self.drops(source, data)


@pytest.fixture
def worker() -> _Worker:
    """Give one whose listed source has an answered call."""
    made = _Worker()
    made.calls.remember(LISTED, CALL)
    made.publish(LISTED)
    return made


@pytest.mark.parametrize("name", ["Call-ID", "i", "CALL-ID "])
def test_messages_of_its_call_pass(worker: _Worker, name: str) -> None:
    """Requests within the dialog, in all forms of the header, and replies."""
    assert worker.passes(message(name=name))
    assert worker.passes(message(method="INFO", name=name))
    reply = message(name=name).replace(b"BYE sip:a@b SIP/2.0", b"SIP/2.0 200 OK")
    assert worker.passes(reply.replace(b";tag=1", b""))
    assert worker.counts[:3] == (0, 0, 3)


def test_everything_else_of_it_is_dropped(worker: _Worker) -> None:
    """Another call, a To-tag on another call, a request outside of the dialog, junk."""
    assert worker.passes(message())
    for data in (
        message("another@a", "INVITE", ""),
        message("another@a"),
        message(method="INVITE", tag=""),
        b"\r\n" * 20,
        b"BYE sip:a@b SIP/2.0\r\nSubject: \xff\r\nt: <a>;tag=1\r\ni: one@a\r\n\r\n",
    ):
        assert worker.drops(LISTED, data)
    assert worker.passes(message())


def test_nobody_elses_call_is_spared(worker: _Worker) -> None:
    """The Call-ID of a call that another source has is of no use."""
    worker.publish(LISTED, UNLISTED)
    assert worker.drops(UNLISTED, message())


def test_grace_begins_with_the_first_message_and_ends(worker: _Worker) -> None:
    """However long ago it was listed; then its messages are dropped, and cached."""
    worker.clock.tick(1000)
    assert worker.passes(message())
    worker.clock.tick(29)
    assert worker.passes(message())
    worker.publish(LISTED)  # a renewal of the list gives it no more time
    assert worker.passes(message())
    worker.clock.tick(1)
    assert worker.drops(LISTED, message())
    assert LISTED in worker.gate.listed


def test_message_that_is_dropped_begins_it_too(worker: _Worker) -> None:
    """So a scanner's own packets use its grace up."""
    assert worker.drops(LISTED, message("another@a"))
    worker.clock.tick(30)
    assert worker.drops(LISTED, message())


def test_call_after_it_was_let_off_has_grace_again(worker: _Worker) -> None:
    """It was taken off the list, and begins another call."""
    assert worker.passes(message())
    worker.clock.tick(60)
    worker.publish()
    worker.calls.remember(LISTED, "two@a")
    worker.publish(LISTED)
    assert worker.passes(message("two@a"))


def test_call_that_is_known_begins_no_grace_again(worker: _Worker) -> None:
    """As when a re-INVITE of it is answered, listed or let off for a while."""
    assert worker.passes(message())
    for _ in range(2):
        worker.clock.tick(15)
        worker.calls.remember(LISTED, CALL)
    assert worker.drops(LISTED, message())
    worker.publish()
    worker.calls.remember(LISTED, CALL)
    worker.publish(LISTED)
    assert worker.drops(LISTED, message())


def test_verdicts_of_it_are_cached_nowhere(worker: _Worker) -> None:
    """Neither by the worker nor in front of it, whichever way each message went."""
    for _ in range(4):
        for data, expected in ((message(), SPARED), (message("another@a"), 2)):
            worker.ksr.variables = packet(LISTED, data)
            assert worker.guard.received(object(), LISTED) == expected
    assert LISTED not in worker.gate.listed
    assert worker.board.words[FRONT] == 0
    assert not worker.ksr.calls_of("htable.sht_seti")


def test_listed_source_without_calls_is_cached_and_not_looked_at_again() -> None:
    """Its flood costs what it costs without grace: no message is read."""
    worker = _Worker(LISTED)
    assert worker.drops(LISTED, message())
    assert LISTED in worker.gate.listed
    worker.ksr.calls.clear()
    assert worker.drops(LISTED, message())
    assert worker.ksr.calls_of("pv.get") == [("$rcv(srcip)",)]


def test_no_grace_when_it_is_off() -> None:
    """Neither are calls remembered, nor those of before spared."""
    worker = _Worker(grace=0)
    worker.calls.remember(LISTED, CALL)
    worker.publish(LISTED)
    assert worker.drops(LISTED, message())
    worker.calls.grace = 30
    worker.publish(LISTED)
    assert worker.drops(LISTED, message())
    worker.calls.remember(LISTED, CALL)
    worker.calls.grace = 0
    worker.publish(LISTED)
    assert worker.drops(LISTED, message())


def test_shadow_counts_it_as_would_be_dropped() -> None:
    """There is nothing to spare where nothing is dropped."""
    worker = _Worker(mode=Mode.SHADOW)
    worker.calls.remember(LISTED, CALL)
    worker.publish(LISTED, mode=Mode.SHADOW)
    assert worker.passes(message())
    assert worker.counts[:3] == (0, 1, 0)


def test_top_of_request_route(worker: _Worker) -> None:
    """There Kamailio has parsed the message, and knows its Call-ID and To-tag."""
    for call, tag, expected in ((CALL, "1", SPARED), (CALL, None, 2), ("other", "1", 2)):
        worker.ksr.variables = {"$si": LISTED, "$ci": call, "$tt": tag}
        assert worker.guard.request_verdict() == expected
    assert worker.board.words[worker.guard._slot + DROPPED] == 2
