"""The good callers, against the real upstream over a network that loses what a test chooses."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from apiban.bench.calls import Caller
from apiban.bench.upstream import Upstream

TARGET = "127.0.4.1:5080"
SOURCE = "127.0.2.1:5060"
STEP = 0.01


class Network:
    """Carries messages between a caller and the upstream, in steps of a clock of its own."""

    def __init__(
        self, lose: Callable[[bytes], bool], *, calls: int = 1, patience: float = 8.0
    ) -> None:
        self.now = 100.0
        self.caller = Caller(
            TARGET, SOURCE, rate=10.0, seconds=calls / 10.0, patience=patience, began=self.now
        )
        self.upstream = Upstream(TARGET)
        self.lose = lose
        self.sent: list[tuple[float, str]] = []  # by the caller: when, method

    def run(self) -> Caller:
        """Let time pass until all calls are over."""
        while not self.caller.done:
            self._from_upstream(self.upstream.again(self.now))
            self._from_caller(self.caller.send(self.now))
            self.now += STEP
        return self.caller

    def _from_caller(self, messages: list[bytes]) -> None:
        for message in messages:
            self.sent.append((round(self.now - 100.0, 2), message.split()[0].decode()))
            if not self.lose(message):
                self._from_upstream(self.upstream.receive(message, self.now))

    def _from_upstream(self, messages: list[bytes]) -> None:
        for message in messages:
            if not self.lose(message):
                self._from_caller(self.caller.receive(message, self.now))

    def times(self, method: str) -> list[float]:
        """Give when the caller sent a method, since its first call."""
        return [when for when, sent in self.sent if sent == method]


def first(count: int, pattern: bytes) -> Callable[[bytes], bool]:
    """Lose the first ``count`` messages that match."""
    left = [count]

    def lose(message: bytes) -> bool:
        if left[0] and re.match(pattern, message):
            left[0] -= 1
            return True
        return False

    return lose


def never(_: bytes) -> bool:
    """Lose nothing."""
    return False


def test_a_call_is_set_up_and_ended() -> None:
    """Without loss each message is sent once: INVITE, ACK, BYE."""
    network = Network(never)
    caller = network.run()
    assert [method for _, method in network.sent] == ["INVITE", "ACK", "BYE"]
    assert (caller.calls, caller.lost, caller.repeated, caller.setups) == (1, 0, 0, [0.0])


def test_calls_begin_at_their_rate() -> None:
    """Ten calls a second, each with numbers of its own."""
    network = Network(never, calls=5)
    caller = network.run()
    assert network.times("INVITE") == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert (caller.calls, caller.lost, len(caller.setups)) == (5, 0, 5)
    assert network.upstream.good == 5


def test_an_invite_that_is_lost_is_sent_again() -> None:
    """The pauses double from T1 on, and the setup time tells of them."""
    network = Network(first(3, b"INVITE"))
    caller = network.run()
    assert network.times("INVITE") == [0.0, 0.5, 1.5, 3.5]
    assert caller.setups == [pytest.approx(3.5, abs=2 * STEP)]
    assert (caller.lost, caller.repeated) == (0, 3)


def test_a_call_is_lost_when_patience_ends() -> None:
    """Eight seconds hold five tries."""
    network = Network(first(99, b"INVITE"))
    caller = network.run()
    assert network.times("INVITE") == [0.0, 0.5, 1.5, 3.5, 7.5]
    assert (caller.lost, caller.refused, caller.setups) == (1, 0, [])
    assert network.now == pytest.approx(108.0, abs=0.1)


def test_a_provisional_answer_stops_the_repetition() -> None:
    """A 200 that is lost after the 180 is the upstream's to send again."""
    network = Network(first(2, rb"SIP/2\.0 200"))
    caller = network.run()
    assert network.times("INVITE") == [0.0]
    assert caller.setups == [pytest.approx(1.5, abs=2 * STEP)]
    assert caller.lost == 0


def test_an_ack_that_is_lost_is_sent_with_each_200() -> None:
    """The upstream sends its 200 until it has seen the ACK; the call goes on meanwhile."""
    network = Network(first(1, b"ACK"))
    network.run()
    while network.now < 103.0:
        network._from_upstream(network.upstream.again(network.now))
        network.now += STEP
    assert network.times("ACK") == [0.0, 0.5]


def test_a_bye_without_an_answer_loses_the_call() -> None:
    """It was set up, and is lost all the same."""
    network = Network(first(99, b"BYE"))
    caller = network.run()
    assert network.times("BYE") == [0.1, 0.6, 1.6, 3.6, 7.6]
    assert (caller.lost, len(caller.setups)) == (1, 1)


def test_only_an_invites_pauses_grow_without_end() -> None:
    """Those of a BYE stop at T2; both have 64*T1 = 32 s with the RFC's patience."""
    invited, ended = (Network(first(99, one), patience=32.0) for one in (b"INVITE", b"BYE"))
    assert (invited.run().lost, ended.run().lost) == (1, 1)
    assert invited.times("INVITE") == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert [round(one, 1) for one in ended.times("BYE")] == [
        0.1, 0.6, 1.6, 3.6, 7.6, 11.6, 15.6, 19.6, 23.6, 27.6, 31.6,
    ]  # fmt: skip


def test_a_refusal_is_acknowledged_in_its_transaction() -> None:
    """The ACK has the INVITE's branch and the answer's To; the call is lost at once."""
    caller = Caller(TARGET, SOURCE, rate=10, seconds=0.1, patience=8, began=0.0)
    (invite,) = caller.send(0.0)
    head = invite.partition(b"\r\n")[2].partition(b"Contact:")[0]
    refusal = b"SIP/2.0 503 Busy\r\n" + head.replace(b"To: <", b"To: <x") + b"\r\n"
    (ack,) = caller.receive(refusal, 0.1)
    branch = re.compile(rb"branch=([^;]+)")
    assert branch.findall(ack) == branch.findall(invite)
    assert b"To: <xsip:service@" in ack
    assert (caller.lost, caller.refused, caller.done) == (1, 1, True)


def test_the_route_of_the_200_carries_ack_and_bye() -> None:
    """Record-Route becomes Route, backwards; the Contact becomes the request's URI."""
    caller = Caller(TARGET, SOURCE, rate=10, seconds=0.1, patience=8, began=0.0)
    (invite,) = caller.send(0.0)
    _, answer = Upstream(TARGET).receive(invite, 0.0)
    route = b"Record-Route: <sip:192.0.2.1;lr>\r\nRecord-Route: <sip:192.0.2.2;lr>\r\nFrom:"
    (ack,) = caller.receive(answer.replace(b"From:", route), 0.0)
    assert ack.startswith(b"ACK sip:service@127.0.4.1:5080 SIP/2.0\r\n")
    assert re.findall(rb"Route: <sip:([\d.]+);lr>", ack) == [b"192.0.2.2", b"192.0.2.1"]


def test_a_caller_that_is_late_says_so() -> None:
    """Lateness is the caller's own: its core was busy."""
    caller = Caller(TARGET, SOURCE, rate=10, seconds=0.2, patience=8, began=0.0)
    caller.send(0.25)
    assert caller.lateness == [pytest.approx(0.25), pytest.approx(0.15)]


@pytest.mark.parametrize("junk", [b"", b"\x00\xff", b"SIP/2.0 200 OK\r\n\r\n", b"OPTIONS x"])
def test_what_is_no_answer_is_left_alone(junk: bytes) -> None:
    """Nothing is sent upon it, and no call ends by it."""
    caller = Caller(TARGET, SOURCE, rate=10, seconds=0.1, patience=8, began=0.0)
    caller.send(0.0)
    assert caller.receive(junk, 0.0) == []
    assert not caller.done
